// Reward against NFE: a dot for each candidate, a line for the best so far.

const [LEFT, TOP, BOTTOM, HEIGHT] = [52, 12, 268, 300];
const TAKEN = ["improved", "level_best", "kept"];

const element = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

/** Draw candidates (`{nfe, reward, best_reward, decision}`), the first of which spent `before` + 1. */
export function draw(svg, candidates, budget, before) {
  const width = svg.clientWidth; // drawn in its own pixels, words are as large on any screen
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const right = width - 12;
  const rewards = candidates.map((candidate) => candidate.reward);
  const low = Math.min(...rewards);
  const span = Math.max(...rewards) - low || 1;
  const x = (nfe) => LEFT + ((nfe - before) / budget) * (right - LEFT);
  const y = (reward) => BOTTOM - ((reward - low) / span) * (BOTTOM - TOP);
  svg.replaceChildren(...axes(x, y, low, span, budget, before), ...candidates.map((c) => dot(c, x, y)));
  const path = candidates.map((c, i) => `${i ? `H${x(c.nfe)}V` : `M${x(c.nfe)},`}${y(c.best_reward)}`);
  svg.append(element("path", { class: "best", d: path.join("") }));
}

function dot(candidate, x, y) {
  const taken = TAKEN.includes(candidate.decision);
  const made = element("circle", { class: taken ? "dot taken" : "dot", cx: x(candidate.nfe), cy: y(candidate.reward), r: taken ? 3.5 : 2.5 });
  made.append(element("title", {}, `NFE ${candidate.nfe}: ${candidate.reward.toPrecision(4)}, ${candidate.decision}`));
  return made;
}

/** A thousandth of the height at most: more digits are not seen, and have no room. */
const rounded = (reward, span) => Number(reward.toFixed(Math.min(Math.max(0, Math.ceil(2 - Math.log10(span))), 20)));

function axes(x, y, low, span, budget, before) {
  const lines = [0, 0.5, 1].flatMap((part) => {
    const reward = low + part * span;
    return [
      element("line", { class: "grid", x1: LEFT, x2: x(before + budget), y1: y(reward), y2: y(reward) }),
      element("text", { x: LEFT - 6, y: y(reward) + 4, "text-anchor": "end" }, rounded(reward, span)),
    ];
  });
  const ends = [before, before + budget].map((nfe, end) =>
    element("text", { x: x(nfe), y: BOTTOM + 18, "text-anchor": end ? "end" : "start" }, end ? `${nfe} NFE` : nfe));
  return [...lines, ...ends];
}
