// Pairs to look at, and one of them with all that is known about it.

import { ask, at, made, number, picture } from "./ask.js";
import { asked, draft } from "./draft.js";

const WORDS = { passes: "passes", drops: "drops it", "no score": "has no score for it, so drops it" };
let seed = 0;
let asking; // the last question: an answer to an earlier one comes too late
let shown; // what is on the page is left alone while it stays true, for whoever is about to click on it

function chosen() {
  return new FormData(at("look")).get("show");
}

export async function showPairs() {
  const show = chosen();
  const lines = draft.filters.filter((each) => each.on && each.handle).map((each) => each.name);
  fill(at("edge"), lines);
  const edge = at("edge").value;
  if (show === "edge" && !edge) {
    at("pairs").replaceChildren();
    asking = shown = undefined;
    at("found").textContent = "No filter of this recipe draws a line on one score.";
    return;
  }
  const mine = (asking = {});
  const found = await ask("pairs", { ...asked(), show, edge: show === "edge" ? edge : "", text: at("text").value, seed });
  if (mine !== asking) return;
  at("found").textContent = says(show, edge, found);
  if (shown === JSON.stringify(found.pairs)) return;
  shown = JSON.stringify(found.pairs);
  at("pairs").replaceChildren(...found.pairs.map(card));
}

function says(show, edge, found) {
  const pairs = `${number(found.count)} pairs`;
  if (show === "edge") return `${pairs} are up to ${edge} alone; these are nearest to its line. Is it where it should be?`;
  const blind = found.pairs.length < found.count ? `; ${found.pairs.length} of them, taken blindly` : "";
  return `${pairs}${blind}`;
}

function fill(select, names) {
  const before = select.value;
  if ([...select.options].map((each) => each.value).join() === names.join()) return;
  select.replaceChildren(...names.map((name) => made("option", {}, name)));
  if (names.includes(before)) select.value = before;
}

function card(pair) {
  const frame = made("span", { class: "picture" });
  picture(frame, pair);
  const fate = made("span", { class: `note ${pair.kept ? "is-kept" : "is-dropped"}` }, pair.kept ? "kept" : "dropped");
  if (pair.note) fate.append(`, ${pair.note}`);
  return made("button", { type: "button", onclick: () => open(pair) }, frame,
    made("bdi", {}, pair.caption || "(no caption)"), made("bdi", { class: "url" }, pair.url), fate);
}

async function open(pair) {
  const told = await ask("pair", { ...asked(), place: pair.place });
  at("pair-title").firstElementChild.textContent = told.caption || "(no caption)";
  at("pair-url").textContent = told.url;
  at("pair-filters").replaceChildren(...told.filters.map((each) => made("li", {},
    made("b", {}, each.name), " ", made("span", { class: each.says === "passes" ? "is-kept" : "is-dropped" }, WORDS[each.says]),
    made("code", {}, each.sql))));
  if (!told.filters.length) at("pair-filters").append(made("li", {}, "There is no filter."));
  at("pair-columns").replaceChildren(...told.columns.map(([name, value]) =>
    made("tr", {}, made("td", {}, made("code", {}, name)), made("td", {}, made("bdi", {}, value)))));
  picture(at("pair").querySelector(".picture"), pair, true);
  at("pair").showModal();
}

export function others() {
  seed += 1;
  return showPairs();
}
