// The page: a form that submits, a search as it runs, and what was searched before.

import { Problem, events, fetched, get, key, post, remove } from "./api.js";
import { draw } from "./chart.js";

const $ = (id) => document.getElementById(id);
const form = $("submission");
const number = (value) => (value === null || value === undefined ? "–" : Number(value).toPrecision(4));
const home = (id) => `/v1/generations/${id}`;
let shown = new AbortController(); // ends the watching of the generation shown
const pictures = { generation: new Set(), recent: new Set() }; // object URLs, which live until they are let go
let models = [];
let rewards = [];

// ---- the form ----

async function loadChoices() {
  const [served, offered, strategies] = await Promise.all(["models", "rewards", "strategies"].map((kind) => get(`/v1/${kind}`)));
  models = served.data;
  rewards = offered.data.filter((reward) => reward.available);
  fill($("model"), models, "id");
  fill($("strategy"), strategies.data, "name");
  $("model").onchange = suitModel;
  suitModel();
}

/** Offer what the chosen model can be asked for. */
function suitModel() {
  const { reward, image } = models.find((model) => model.id === $("model").value);
  showRewards(reward);
  $("image-field").hidden = image === "none";
  $("image").required = image === "required";
}

function fill(select, entries, name) {
  select.replaceChildren(...entries.map((entry) => new Option(entry[name], entry[name], entry.default, entry.default)));
  for (const [index, entry] of entries.entries()) select.options[index].title = entry.title;
}

function showRewards(preferred) {
  const model = $("model").value;
  fill($("reward"), rewards.filter((reward) => !reward.models || reward.models.includes(model)), "name");
  if ([...$("reward").options].some((option) => option.value === preferred)) $("reward").value = preferred;
}

/** What is left empty is for the server to fill in. */
const filledIn = (...fields) => Object.fromEntries(fields.filter((field) => $(field).value !== "").map((field) => [field, Number($(field).value)]));

async function submission() {
  const [file] = $("image-field").hidden ? [] : $("image").files;
  return {
    prompt: $("prompt").value,
    model: $("model").value,
    reward: $("reward").value,
    budget: filledIn("nfe", "seconds"),
    search: { strategy: $("strategy").value },
    baseline: $("baseline").checked,
    ...filledIn("seed"),
    ...(file ? { image: await dataURL(file) } : {}),
  };
}

/** A file as a request has it. */
const dataURL = (file) => new Promise((read, failed) => {
  const reader = new FileReader();
  reader.onload = () => read(reader.result);
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(file);
});

function complain(error) {
  const problem = error instanceof Problem;
  if (problem && (error.status === 401 || error.code === "no_keys")) $("key-field").hidden = false;
  const errors = problem && error.errors.length ? error.errors : [{ detail: error.message }];
  for (const { pointer } of errors) $(pointer?.split("/").pop())?.setAttribute("aria-invalid", "true");
  $("problems").replaceChildren(...errors.map(({ pointer, detail }) => item(pointer ? `${pointer.slice(1)}: ${detail}` : detail)));
  $("problems").hidden = false;
}

function uncomplain() {
  $("problems").hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

const item = (text) => Object.assign(document.createElement("li"), { textContent: text });

let quoting = 0;
let quotes = 0; // what is told of an earlier form is not of this one
function quoteSoon() {
  quotes++;
  clearTimeout(quoting);
  quoting = setTimeout(quote, 300);
}

async function quote() {
  uncomplain();
  $("quote").value = "";
  if (!form.checkValidity()) return;
  const mine = quotes;
  try {
    const { expected_seconds: seconds, queue, plan } = await post("/v1/quotes", await submission());
    if (mine !== quotes) return;
    const nfe = $("nfe").value === "" ? `${plan.nfe} NFE, ` : "";
    const wait = queue.position ? `, after ${queue.position} waiting` : "";
    $("quote").value = seconds === null ? "" : `${nfe}about ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s${wait}`;
  } catch (error) {
    if (mine === quotes) complain(error);
  }
}

async function submit(event) {
  event.preventDefault();
  if (!models.length) return; // there is nothing to choose from yet: Enter in the field of the key asks for it
  quotes++;
  clearTimeout(quoting);
  uncomplain();
  try {
    location.hash = (await post("/v1/generations", await submission())).id;
  } catch (error) {
    complain(error);
  }
}

// ---- one generation ----

async function show(id) {
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  clear();
  try {
    const job = await get(home(id));
    if (signal.aborted) return;
    begin(job);
    await follow(job, signal);
  } catch (error) {
    if (!signal.aborted) complain(error);
  }
}

function clear() {
  release(pictures.generation);
  for (const element of [$("chart"), $("facts"), $("levels")]) element.replaceChildren();
  for (const element of [$("picture"), $("rival"), $("links"), $("cancel"), $("failure"), $("generation")]) element.hidden = true;
  $("caption").textContent = "";
}

function begin(job) {
  $("title").textContent = job.request.prompt;
  $("status").textContent = job.status;
  $("progress").value = 0;
  $("columns").hidden = false;
  $("generation").hidden = false;
  const { top } = $("generation").getBoundingClientRect();
  if (top < 0 || top > innerHeight) $("generation").scrollIntoView(); // chosen far below, or sent from a small screen
  $("cancel").onclick = () => post(job.urls.cancel).catch(complain);
  $("delete").onclick = async () => {
    await remove(home(job.id)).then(() => (location.hash = ""), complain);
  };
}

async function follow(job, signal) {
  const candidates = [];
  const before = job.parent?.nfe ?? 0;
  const budget = job.request.budget.nfe;
  let drawing = 0;
  const redraw = () => (drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (!signal.aborted) draw($("chart"), candidates, budget, before);
  }));
  $("cancel").hidden = ["succeeded", "failed", "canceled"].includes(job.status);
  for await (const event of events(job.urls.events, signal)) {
    if (signal.aborted) return;
    if (event.type === "candidate") {
      candidates.push(event);
      $("progress").value = (event.nfe - before) / budget;
      $("status").textContent = `${event.nfe - before} of ${budget} NFE, best ${number(event.best_reward)}`;
      redraw();
    } else if (event.type === "level" && event.preview_url) {
      preview(event, signal);
    } else if (event.type === "started") {
      $("status").textContent = "running";
    } else if (event.type === "baseline") {
      $("status").textContent = "running best-of-n beside it";
    }
  }
  if (!signal.aborted) await ended(await get(home(job.id)), signal);
}

function preview(event, signal) {
  const caption = Object.assign(document.createElement("figcaption"), { textContent: `${event.level}: ${number(event.reward)}` });
  const figure = document.createElement("figure");
  figure.append(caption);
  $("levels").append(figure);
  const isBest = event.reward >= event.best_reward;
  pictured(event.preview_url, `chain ${event.chain}, level ${event.level}`, pictures.generation).then((image) => {
    if (signal.aborted || !image) return;
    figure.prepend(image);
    if (isBest && $("links").hidden) setImage(image.src);
  });
}

/** An <img> of a path, or null where there is none (any more). */
async function pictured(path, alt, pool) {
  const src = await fetched(path).catch(() => null);
  if (!src) return null;
  pool.add(src);
  return Object.assign(document.createElement("img"), { src, alt });
}

function release(pool) {
  for (const url of pool) URL.revokeObjectURL(url);
  pool.clear();
}

function setImage(src) {
  $("picture").src = src;
  $("picture").alt = $("title").textContent;
  $("picture").hidden = false;
}

async function ended(job, signal) {
  $("cancel").hidden = true;
  $("links").hidden = false;
  $("progress").value = 1;
  $("status").textContent = job.status;
  $("failure").textContent = job.error?.detail ?? "";
  $("failure").hidden = !job.error;
  $("save-trace").onclick = () => save(`${job.urls.trace}?format=csv`, `${job.id}.csv`);
  const best = job.result?.images[0];
  $("save-image").hidden = !best;
  $("columns").hidden = !best;
  if (best) await present(job, best, signal);
  await loadRecent();
}

async function present(job, best, signal) {
  const { result, usage } = job;
  $("caption").textContent = `reward ${number(best.reward)}, first ${number(result.first_reward)}`;
  $("save-image").onclick = () => save(best.url, `${job.id}.${job.request.output_format}`);
  const facts = {
    "first reward": number(result.first_reward),
    "final reward": number(best.reward),
    ...Object.fromEntries(Object.entries(best.held_out).map(([name, score]) => [`${name} (held out)`, number(score)])),
    "NFE": `${usage.nfe_spent} of ${job.request.budget.nfe}${unspent(usage)}`,
    "seconds": usage.seconds.total.toFixed(1),
    "seed": job.request.seed,
  };
  $("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => fact(name, value)));
  const image = await pictured(best.url, job.request.prompt, pictures.generation);
  if (image && !signal.aborted) setImage(image.src);
  if (result.baseline) await presentRival(result.baseline, usage.baseline, signal);
}

async function presentRival({ image: best, nfe_spent: nfe }, usage, signal) {
  const image = await pictured(best.url, "the picture that best-of-n found", pictures.generation);
  if (signal.aborted || !image) return;
  const [frame, caption] = $("rival").children;
  frame.replaceChildren(image);
  caption.textContent = `best-of-n: ${number(best.reward)}, ${nfe} NFE${unspent(usage)}`;
  $("rival").hidden = false;
}

/** What a search left of its budget and why; nothing of one that left none, or ended before this was told. */
function unspent({ nfe_unspent: nfe, unspent_reason: reason }) {
  return nfe ? `, ${nfe} unspent: ${reason}` : "";
}

function fact(name, value) {
  const pair = document.createElement("div");
  pair.append(
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  );
  return pair;
}

async function save(path, name) {
  const href = await fetched(path).catch(complain);
  if (href) Object.assign(document.createElement("a"), { href, download: name }).click();
}

// ---- what was searched before ----

let lists = 0;
async function loadRecent() {
  const mine = ++lists; // one that was asked for later may come sooner
  const { data } = await get("/v1/generations?limit=12");
  if (mine !== lists) return;
  release(pictures.recent);
  const entries = await Promise.all(data.map(recent));
  if (mine !== lists) return;
  $("recent").replaceChildren(...(entries.length ? entries : [Object.assign(item("Nothing yet."), { className: "none" })]));
}

async function recent(job) {
  const link = Object.assign(document.createElement("a"), { href: `#${job.id}` });
  const frame = Object.assign(document.createElement("div"), { className: "frame" });
  const best = job.result?.images[0];
  const image = best && (await pictured(best.url, "", pictures.recent));
  if (image) frame.append(image);
  const { prompt } = job.request;
  const words = Object.assign(document.createElement("span"), { className: "prompt", textContent: prompt, title: prompt });
  const state = Object.assign(document.createElement("span"), {
    className: "status",
    textContent: best ? number(best.reward) : job.status,
  });
  link.append(frame, words, state);
  const entry = document.createElement("li");
  entry.append(link);
  return entry;
}

// ---- all together ----

function route() {
  const id = location.hash.slice(1);
  if (id) show(id);
  else {
    shown.abort();
    clear();
    loadRecent().catch(complain);
  }
}

async function start() {
  uncomplain();
  try {
    await loadChoices();
    await loadRecent();
    route();
  } catch (error) {
    complain(error);
  }
}

form.addEventListener("submit", submit);
form.addEventListener("input", (event) => event.target !== $("key") && quoteSoon());
$("seconds").addEventListener("input", () => ($("nfe").required = $("seconds").value === ""));
$("key").addEventListener("change", () => {
  key.set($("key").value.trim());
  start();
});
window.addEventListener("hashchange", route);
if (key.get()) $("key-field").hidden = false;
start();
