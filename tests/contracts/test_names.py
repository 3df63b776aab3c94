from contracts.names import did_you_mean, nearest

KNOWN = ["scene_match", "scene_exact", "sharpness", "brightness"]


def test_nearest_first() -> None:
    assert nearest("scene_mach", KNOWN)[0] == "scene_match"
    assert nearest("Scene-Match", KNOWN)[0] == "scene_match"


def test_nothing_near() -> None:
    assert nearest("zzz", KNOWN) == []
    assert did_you_mean("zzz", KNOWN) == ""


def test_did_you_mean() -> None:
    assert did_you_mean("brightnes", KNOWN) == " Did you mean 'brightness'?"


def test_a_long_name_costs_no_time() -> None:
    assert nearest("scene_match" + "x" * 1_000_000, KNOWN) == []
