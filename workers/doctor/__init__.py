"""`rollover doctor`: what would run on this machine. Works without torch, and downloads nothing."""
