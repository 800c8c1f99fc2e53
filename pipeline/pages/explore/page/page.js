// The page of `winnow explore`: the recipe and its counts; what is below them follows.

import { ask, at, made, number, share } from "./ask.js";
import * as recipe from "./draft.js";
import * as labelling from "./labelling.js";
import { others, showPairs } from "./pairs.js";
import { scores } from "./scores.js";

const { draft } = recipe;
const SPOKEN = 700; // milliseconds of rest before counts are spoken and pairs are fetched

let start;
let drawScores = () => {};
let busy = false;
let again = false;
let rest;
let published;

function complain(error) {
  at("error").textContent = error.message;
  at("count").classList.add("stale");
}

const quietly = (what) => () => what().catch(complain);

// One question at a time; whatever changed meanwhile is asked next.
async function refresh() {
  again = true;
  if (busy) return;
  busy = true;
  try {
    while (again) {
      again = false;
      show(await ask("funnel", recipe.asked()));
    }
    at("error").textContent = "";
    at("count").classList.remove("stale");
  } catch (error) {
    complain(error);
  }
  busy = false;
  clearTimeout(rest);
  rest = setTimeout(settled, SPOKEN);
}

function settled() {
  at("said").textContent = `${at("kept").textContent} of ${at("pool").textContent} pairs kept`;
  quietly(showPairs)();
}

function show(answer) {
  at("kept").textContent = number(answer.kept);
  at("share").style.width = share(answer.kept, start.pool || 1);
  for (const step of answer.steps) {
    const filter = draft.filters.find((each) => each.name === step.filter);
    if (filter?.sql === step.sql) filter.handle = step.handle;
    showStep(step);
  }
  drawScores(answer);
  showSides(answer);
}

const rows = new Map();

const count = (what) => made("td", { class: "n", "data-what": what }, "–");

function row(filter) {
  const on = made("input", { type: "checkbox", "aria-label": `${filter.name} is on`, onchange: () => recipe.turn(filter, on.checked) });
  const sql = made("code", {}, filter.sql);
  const cells = ["alone", "in sequence", "fails", "no score", "it alone drops"].map(count);
  const meter = made("i");
  const head = made("th", { scope: "row" }, filter.name, sql);
  const element = made("tr", {}, made("td", {}, on), head, ...cells,
    made("td", {}, made("button", { type: "button", class: "remove", "aria-label": `Remove ${filter.name}`, title: "Remove", onclick: () => recipe.remove(filter) }, "✕")));
  if (filter.why) head.title = filter.why;
  const told = made("output");
  const range = made("input", { type: "range", min: 1, max: 99, "aria-label": `${filter.name}: share of all pairs`, oninput: () => {
    const part = range.valueAsNumber;
    filter.on = true;
    recipe.move(filter, ((filter.handle.keeps_high ? 100 - part : part) / 100).toFixed(2));
  } });
  if (filter.handle?.share) head.append(made("div", { class: "share" }, range, told));
  return { element, cells, meter, sync() {
    on.checked = filter.on;
    sql.textContent = filter.sql;
    element.classList.toggle("off", !filter.on);
    if (filter.handle?.share) {
      const part = Math.round(100 * (filter.handle.keeps_high ? 1 - filter.handle.number : filter.handle.number));
      if (range.valueAsNumber !== part) range.value = part;
      told.textContent = `${filter.handle.keeps_high ? "best" : "lowest"} ${part} %`;
      range.setAttribute("aria-valuetext", told.textContent);
    }
    if (!filter.on) cells.forEach((cell) => cell.replaceChildren("–"));
  } };
}

function showFilters(whole) {
  if (whole) {
    rows.clear();
    for (const filter of [...draft.filters, draft.distinct].filter(Boolean)) rows.set(filter.name, row(filter));
    at("steps").replaceChildren(...[...rows.values()].map((each) => each.element));
    at("empty").hidden = rows.size > 0;
  }
  for (const each of rows.values()) each.sync();
}

function showStep(step) {
  const shown = rows.get(step.filter);
  if (!shown) return;
  const [alone, sequence, fails, unscored, costs] = shown.cells;
  alone.textContent = number(step.alone);
  shown.meter.style.width = share(step.sequence, start.pool || 1);
  sequence.replaceChildren(number(step.sequence), made("div", { class: "meter" }, shown.meter));
  fails.textContent = number(step.fails);
  unscored.textContent = number(step.unscored);
  costs.textContent = number(step.costs);
}

function showSides(answer) {
  const told = answer.sides;
  at("overlap").hidden = !told;
  for (const each of document.querySelectorAll("#show .other")) each.hidden = !told;
  if (!told) return;
  const name = label(draft.other);
  at("overlap-says").textContent = `${name} keeps ${number(told.both + told.other)}. Both keep ${number(told.both)}, ` +
    `only this recipe ${number(told.this)}, only ${name} ${number(told.other)}, neither ${number(told.neither)}.`;
  const parts = { both: told.both, "only-this": told.this, "only-other": told.other, neither: told.neither };
  for (const [id, part] of Object.entries(parts)) {
    at(id).style.flex = `${part} 0 0`;
    at(id).hidden = !part;
  }
  at("other-steps").replaceChildren(...answer.other.map((step) => made("tr", {}, made("th", { scope: "row" }, step.filter, made("code", {}, step.sql)),
    ...[step.alone, step.sequence, step.fails, step.unscored, step.costs].map((each) => made("td", { class: "n" }, number(each))))));
}

const label = (each) => `${each.name} (${each.whence})`;

function showRecipes() {
  const options = () => start.recipes.map((each, at) => made("option", { value: at }, label(each)));
  at("recipe").replaceChildren(...options());
  at("other").replaceChildren(made("option", { value: "" }, "no other recipe"), ...options());
}

function compareWith(other) {
  draft.other = other;
  if (!other && document.querySelector("#show .other input:checked")) document.querySelector('#show input[value="kept"]').checked = true;
  recipe.changed(false);
}

function freeze() {
  const number = start.recipes.push({ name: `${draft.name} as it was`, whence: "on this page", ...recipe.held() });
  const from = at("recipe").value;
  showRecipes();
  at("recipe").value = from;
  at("other").value = number - 1;
  compareWith(start.recipes[number - 1]);
}

async function copy() {
  const { toml } = await ask("toml", { name: draft.name.replaceAll(" ", "-"), ...recipe.sent() });
  at("toml-text").textContent = toml;
  at("toml").showModal();
  const done = await navigator.clipboard.writeText(toml).then(() => true, () => false);
  at("toml-says").textContent = done ? "Copied. Paste it into the source file." : "Select it and copy it into the source file.";
}

async function publish(event) {
  event.preventDefault();
  const name = at("publish-name").value;
  at("publish-now").disabled = true;
  at("published").textContent = "Publishing…";
  try {
    published = await ask("publish", { name, ...recipe.sent() });
    at("published").textContent =
      `${published.new ? "Published" : "It was published already"}: manifest ${published.id}, ${number(published.counts.kept)} pairs kept. ` +
      `The source file stays as it is, and the next \`winnow curate ${start.source}\` publishes its own recipe again: ` +
      `to keep this one, paste its TOML there. \`winnow train ${start.source}\` measures what it is worth.`;
  } catch (error) {
    at("published").textContent = error.message;
  }
  at("publish-now").disabled = false;
}

function wire() {
  at("recipe").onchange = () => recipe.load(start.recipes[at("recipe").value]);
  at("other").onchange = () => compareWith(at("other").value === "" ? null : start.recipes[at("other").value]);
  at("freeze").onclick = freeze;
  at("add").onsubmit = (event) => {
    event.preventDefault();
    recipe.add(at("add-name").value, at("add-sql").value);
    at("add").reset();
  };
  at("copy").onclick = quietly(copy);
  at("publish").onclick = () => {
    at("published").textContent = "";
    at("publishing").showModal();
  };
  at("publish-form").onsubmit = publish;
  at("label").onclick = quietly(labelling.open);
  at("look").onsubmit = (event) => event.preventDefault();
  at("look").onchange = (event) => {
    if (event.target.id === "text") return; // it is told as it is typed; a second time would take the pairs from under a click
    if (event.target.id === "edge") document.querySelector('#show input[value="edge"]').checked = true;
    quietly(showPairs)();
  };
  let typing;
  at("text").oninput = () => {
    clearTimeout(typing);
    typing = setTimeout(quietly(showPairs), 300);
  };
  at("others").onclick = quietly(others);
}

async function main() {
  start = await ask("start");
  document.title = at("title").textContent = `${start.source}: explore`;
  at("title").title = `manifest ${start.manifest}`;
  at("pool").textContent = number(start.pool);
  at("publish-name").value = `${start.source}-explored`.slice(0, 64);
  labelling.prepare(start);
  showRecipes();
  wire();
  recipe.onChange(showFilters);
  recipe.load(start.recipes[0]);
  const first = await ask("funnel", recipe.asked());
  drawScores = scores(at("scores"), start.axes, first);
  recipe.onChange(refresh);
  await refresh();
}

main().catch(complain);
