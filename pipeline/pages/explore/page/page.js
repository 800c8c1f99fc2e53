// The page of `winnow explore`: the recipe, its counts, and all that changes with them.

import { request, byId, create, number, share } from "./request.js";
import * as recipe from "./draft.js";
import * as labelling from "./labelling.js";
import * as map from "./map.js";
import { others, showPairs, showSimilarBy } from "./pairs.js";
import { Scores } from "./scores.js";

const { draft } = recipe;
const REST = 700; // milliseconds without a change before counts are announced and pairs are fetched

let start;
let scores;
let lastAnswer;
let busy = false;
let again = false;
let rest;
let published;

function showError(error) {
  byId("error").textContent = error.message;
  byId("count").classList.add("stale");
}

const safely = (action) => () => action().catch(showError);

// One request at a time. Changes that come meanwhile are sent with the next one.
async function refresh() {
  again = true;
  if (busy) return;
  busy = true;
  try {
    while (again) {
      again = false;
      show(await request("funnel", recipe.comparison()));
    }
    byId("error").textContent = "";
    byId("count").classList.remove("stale");
  } catch (error) {
    showError(error);
  }
  busy = false;
  clearTimeout(rest);
  rest = setTimeout(settled, REST);
}

function settled() {
  byId("said").textContent = `${byId("kept").textContent} of ${byId("pool").textContent} pairs kept`;
  safely(showPairs)();
  safely(map.settled)();
}

// A filter against what is near a region of the map: its column is new, and has a histogram of its own.
function addNear({ name, sql, why, handle, axes }) {
  start.axes = axes;
  const histograms = Object.fromEntries(axes.map((axis) => [axis.column, axis.totals]));
  scores.draw(axes, lastAnswer);
  scores.show({ ...lastAnswer, histograms });
  recipe.add(name, sql, handle, why);
}

function show(answer) {
  byId("kept").textContent = number(answer.kept);
  byId("share").style.width = share(answer.kept, start.pool || 1);
  for (const step of answer.steps) {
    const filter = draft.filters.find((each) => each.name === step.filter);
    if (filter?.sql === step.sql) filter.handle = step.handle;
    showStep(step);
  }
  lastAnswer = answer;
  scores?.show(answer);
  showSides(answer);
}

const rows = new Map();

const count = (what) => create("td", { class: "n", "data-what": what }, "–");

function row(filter) {
  const on = create("input", { type: "checkbox", "aria-label": `${filter.name} is on`, onchange: () => recipe.turn(filter, on.checked) });
  const sql = create("code", {}, filter.sql);
  const cells = ["alone", "in sequence", "fails", "no score", "alone drops"].map(count);
  const meter = create("i");
  const head = create("th", { scope: "row" }, filter.name, sql);
  const element = create("tr", {}, create("td", {}, on), head, ...cells,
    create("td", {}, create("button", { type: "button", class: "remove", "aria-label": `Remove ${filter.name}`, title: "Remove", onclick: () => recipe.remove(filter) }, "✕")));
  if (filter.why) head.title = filter.why;
  const output = create("output");
  const range = create("input", { type: "range", min: 1, max: 99, "aria-label": `${filter.name}: share of all pairs`, oninput: () => {
    const part = range.valueAsNumber;
    filter.on = true;
    recipe.move(filter, ((filter.handle.keeps_high ? 100 - part : part) / 100).toFixed(2));
  } });
  if (filter.handle?.share) head.append(create("div", { class: "share" }, range, output));
  return { element, cells, meter, sync() {
    on.checked = filter.on;
    sql.textContent = filter.sql;
    element.classList.toggle("off", !filter.on);
    if (filter.handle?.share) {
      const part = Math.round(100 * (filter.handle.keeps_high ? 1 - filter.handle.number : filter.handle.number));
      if (range.valueAsNumber !== part) range.value = part;
      output.textContent = `${filter.handle.keeps_high ? "best" : "lowest"} ${part} %`;
      range.setAttribute("aria-valuetext", output.textContent);
    }
    if (!filter.on) cells.forEach((cell) => cell.replaceChildren("–"));
  } };
}

function showFilters(whole) {
  if (whole) {
    rows.clear();
    for (const filter of [...draft.filters, draft.distinct, draft.selection].filter(Boolean)) rows.set(filter.name, row(filter));
    byId("steps").replaceChildren(...[...rows.values()].map((each) => each.element));
    byId("empty").hidden = rows.size > 0;
  }
  for (const each of rows.values()) each.sync();
}

function showStep(step) {
  const shown = rows.get(step.filter);
  if (!shown) return;
  const [alone, sequence, fails, unscored, costs] = shown.cells;
  alone.textContent = number(step.alone);
  shown.meter.style.width = share(step.sequence, start.pool || 1);
  sequence.replaceChildren(number(step.sequence), create("div", { class: "meter" }, shown.meter));
  fails.textContent = number(step.fails);
  unscored.textContent = number(step.unscored);
  costs.textContent = number(step.costs);
}

function showSides(answer) {
  const sides = answer.sides;
  byId("overlap").hidden = !sides;
  for (const each of document.querySelectorAll("#show .other")) each.hidden = !sides;
  if (!sides) return;
  const name = label(draft.other);
  byId("overlap-says").textContent = `${name} keeps ${number(sides.both + sides.other)}. Both keep ${number(sides.both)}, ` +
    `only this recipe ${number(sides.this)}, only ${name} ${number(sides.other)}, neither ${number(sides.neither)}.`;
  const parts = { both: sides.both, "only-this": sides.this, "only-other": sides.other, neither: sides.neither };
  for (const [id, part] of Object.entries(parts)) {
    byId(id).style.flex = `${part} 0 0`;
    byId(id).hidden = !part;
  }
  byId("other-steps").replaceChildren(...answer.other.map((step) => create("tr", {}, create("th", { scope: "row" }, step.filter, create("code", {}, step.sql)),
    ...[step.alone, step.sequence, step.fails, step.unscored, step.costs].map((each) => create("td", { class: "n" }, number(each))))));
}

const label = (each) => `${each.name} (${each.origin})`;

function showRecipes() {
  const options = () => start.recipes.map((each, at) => create("option", { value: at }, label(each)));
  byId("recipe").replaceChildren(...options());
  byId("other").replaceChildren(create("option", { value: "" }, "no other recipe"), ...options());
}

function compareWith(other) {
  draft.other = other;
  if (!other && document.querySelector("#show .other input:checked")) document.querySelector('#show input[value="kept"]').checked = true;
  recipe.changed(false);
}

function freeze() {
  const number = start.recipes.push({ name: `${draft.name} as it was`, origin: "on this page", ...recipe.snapshot() });
  const from = byId("recipe").value;
  showRecipes();
  byId("recipe").value = from;
  byId("other").value = number - 1;
  compareWith(start.recipes[number - 1]);
}

async function copy() {
  const { toml } = await request("toml", { name: draft.name.replaceAll(" ", "-"), ...recipe.enabled() });
  byId("toml-text").textContent = toml;
  byId("toml").showModal();
  const done = await navigator.clipboard.writeText(toml).then(() => true, () => false);
  byId("toml-says").textContent = done ? "Copied. Paste it into the source file." : "Select it and copy it into the source file.";
}

async function publish(event) {
  event.preventDefault();
  const name = byId("publish-name").value;
  byId("publish-now").disabled = true;
  byId("published").textContent = "Publishing…";
  try {
    published = await request("publish", { name, ...recipe.enabled() });
    byId("published").textContent =
      `${published.new ? "Published" : "Already published"}: manifest ${published.id}, ${number(published.counts.kept)} pairs kept. ` +
      `The source file is unchanged, and the next \`winnow curate ${start.source}\` publishes its recipe again. ` +
      `To keep this one, paste its TOML into the source file. \`winnow train ${start.source}\` measures its gain.`;
  } catch (error) {
    byId("published").textContent = error.message;
  }
  byId("publish-now").disabled = false;
}

function wire() {
  byId("recipe").onchange = () => recipe.load(start.recipes[byId("recipe").value]);
  byId("other").onchange = () => compareWith(byId("other").value === "" ? null : start.recipes[byId("other").value]);
  byId("freeze").onclick = freeze;
  byId("add").onsubmit = (event) => {
    event.preventDefault();
    recipe.add(byId("add-name").value, byId("add-sql").value);
    byId("add").reset();
  };
  byId("copy").onclick = safely(copy);
  byId("publish").onclick = () => {
    byId("published").textContent = "";
    byId("publishing").showModal();
  };
  byId("publish-form").onsubmit = publish;
  byId("label").onclick = safely(labelling.open);
  byId("look").onsubmit = (event) => event.preventDefault();
  byId("look").onchange = (event) => {
    if (event.target.id === "text") return; // handled while typing; again here, pairs would move under a click
    if (event.target.id === "edge") document.querySelector('#show input[value="edge"]').checked = true;
    safely(showPairs)();
  };
  let typing;
  byId("text").oninput = () => {
    clearTimeout(typing);
    typing = setTimeout(safely(showPairs), 300);
  };
  byId("others").onclick = safely(others);
}

async function main() {
  start = await request("start");
  document.title = byId("title").textContent = `${start.source}: explore`;
  byId("title").title = `manifest ${start.manifest}`;
  byId("pool").textContent = number(start.pool);
  byId("publish-name").value = `${start.source}-explored`.slice(0, 64);
  labelling.prepare(start);
  map.prepare(start, addNear, showError);
  if (start.maps.length) showSimilarBy((place) => map.similar(place).then(() => byId("similar").scrollIntoView({ block: "start" }), showError));
  showRecipes();
  wire();
  recipe.onChange(showFilters);
  recipe.load(start.recipes[0]);
  const first = await request("funnel", recipe.comparison());
  scores = new Scores(byId("scores"));
  scores.draw(start.axes, first);
  recipe.onChange(refresh);
  await refresh();
}

main().catch(showError);
