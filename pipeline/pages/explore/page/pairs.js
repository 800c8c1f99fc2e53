// Pairs to look at, and one pair with all its columns.

import { request, byId, create, number, picture } from "./request.js";
import { comparison, draft } from "./draft.js";

const WORDS = { passes: "passes", drops: "drops it", "no score": "has no score for it and drops it" };
let seed = 0;
let openSimilar; // shows pairs like the one of a place; unset where no embeddings are stored
let latest; // the last request: answers to earlier ones are dropped
let shown; // the pairs on the page, which stay in place while they are the same: somebody may be about to click

function chosen() {
  return new FormData(byId("look")).get("show");
}

export async function showPairs() {
  const show = chosen();
  const lines = draft.filters.filter((each) => each.on && each.handle).map((each) => each.name);
  fill(byId("edge"), lines);
  const edge = byId("edge").value;
  if (show === "edge" && !edge) {
    byId("pairs").replaceChildren();
    latest = shown = undefined;
    byId("found").textContent = "No filter of this recipe has a threshold on one score.";
    return;
  }
  const mine = (latest = {});
  const found = await request("pairs", { ...comparison(), show, edge: show === "edge" ? edge : "", text: byId("text").value, seed });
  if (mine !== latest) return;
  byId("found").textContent = summary(show, edge, found);
  if (shown === JSON.stringify(found.pairs)) return;
  shown = JSON.stringify(found.pairs);
  byId("pairs").replaceChildren(...found.pairs.map(card));
}

function summary(show, edge, found) {
  const pairs = `${number(found.count)} pairs`;
  if (show === "edge") return `${pairs} are decided by ${edge} alone. These are the nearest to its threshold: is it in the right place?`;
  const part = found.pairs.length < found.count ? `; a random ${found.pairs.length} of them` : "";
  return `${pairs}${part}`;
}

function fill(select, names) {
  const before = select.value;
  if ([...select.options].map((each) => each.value).join() === names.join()) return;
  select.replaceChildren(...names.map((name) => create("option", {}, name)));
  if (names.includes(before)) select.value = before;
}

export function card(pair) {
  const frame = create("span", { class: "picture" });
  picture(frame, pair);
  const fate = create("span", { class: `note ${pair.kept ? "is-kept" : "is-dropped"}` }, pair.kept ? "kept" : "dropped");
  if (pair.note) fate.append(`, ${pair.note}`);
  return create("button", { type: "button", onclick: () => open(pair) }, frame,
    create("bdi", {}, pair.caption || "(no caption)"), create("bdi", { class: "url" }, pair.url), fate);
}

async function open(pair) {
  const known = await request("pair", { ...comparison(), place: pair.place });
  byId("pair-title").firstElementChild.textContent = known.caption || "(no caption)";
  byId("pair-url").textContent = known.url;
  byId("pair-filters").replaceChildren(...known.filters.map((each) => create("li", {},
    create("b", {}, each.name), " ", create("span", { class: each.says === "passes" ? "is-kept" : "is-dropped" }, WORDS[each.says]),
    create("code", {}, each.sql))));
  if (!known.filters.length) byId("pair-filters").append(create("li", {}, "The recipe has no filters."));
  byId("pair-columns").replaceChildren(...known.columns.map(([name, value]) =>
    create("tr", {}, create("td", {}, create("code", {}, name)), create("td", {}, create("bdi", {}, value)))));
  picture(byId("pair").querySelector(".picture"), pair, true);
  byId("pair-similar").hidden = !openSimilar;
  byId("pair-similar").onclick = () => {
    byId("pair").close();
    openSimilar(pair.place);
  };
  byId("pair").showModal();
}

export function showSimilarBy(action) {
  openSimilar = action;
}

export function others() {
  seed += 1;
  return showPairs();
}
