// Label the pairs of a sample with the keyboard, one word a pair.

import { request, byId, create, number, picture } from "./request.js";
import { comparison } from "./draft.js";

const KEYS = { match: "m", "no match": "n", good: "g", "bad picture": "b" };

let words = [];
let queue = [];
let past = [];
let skipped = new Set();
let busy = false;

export function prepare(start) {
  words = start.words;
  const buttons = words.map((word) => create("button", { type: "button", "aria-keyshortcuts": KEYS[word], onclick: () => label(word) },
    create("kbd", { "aria-hidden": "true" }, KEYS[word]), word));
  byId("words").replaceChildren(...buttons,
    create("button", { type: "button", "aria-keyshortcuts": "s", onclick: () => label(null) }, create("kbd", { "aria-hidden": "true" }, "s"), "skip"),
    create("button", { type: "button", "aria-keyshortcuts": "u", onclick: undo }, create("kbd", { "aria-hidden": "true" }, "u"), "undo"));
  byId("label-toml").textContent =
    `[calibration]\ngood = ${JSON.stringify(start.good)}\n`;
  byId("label-file").textContent = start.labels.file;
  byId("label-command").textContent = `winnow calibrate ${start.source}`;
  showCounts("", start.labels);
  byId("label-of").onchange = restart;
  byId("labelling").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select, summary, pre")) return;
    const word = words.find((each) => KEYS[each] === event.key.toLowerCase());
    if (word) label(word);
    else if (event.key.toLowerCase() === "s") label(null);
    else if (event.key.toLowerCase() === "u") undo();
  });
}

export function open() {
  byId("labelling").showModal();
  byId("words").firstElementChild.focus();
  return restart();
}

async function restart() {
  queue = [];
  skipped = new Set();
  await next();
}

// Labelled pairs are not in the sample. Skipped pairs come first in its order, so the next page starts after them.
async function next() {
  if (!queue.length) {
    const body = { ...comparison(), show: byId("label-of").value, unlabelled: true, start: skipped.size };
    queue = (await request("pairs", body)).pairs;
  }
  show();
}

function show() {
  const pair = queue[0];
  byId("label-caption").textContent = pair ? pair.caption || "(no caption)" : "Every pair has a label.";
  const frame = byId("labelling").querySelector(".picture");
  if (pair) picture(frame, pair, true);
  else frame.replaceChildren();
}

async function label(word) {
  if (busy || !queue.length) return;
  busy = true;
  try {
    const pair = queue[0];
    if (word) showCounts(`${word}.`, await request("label", { place: pair.place, label: word }), queue[1]);
    else skipped.add(pair.place);
    past.push({ pair, word });
    queue.shift();
    await next();
  } catch (error) {
    byId("label-says").textContent = error.message;
  } finally {
    busy = false;
  }
}

async function undo() {
  if (busy || !past.length) return;
  busy = true;
  try {
    const { pair, word } = past.pop();
    if (word) showCounts("Undone.", await request("label", { place: pair.place, label: null }), pair);
    else skipped.delete(pair.place);
    queue.unshift(pair);
    show();
  } catch (error) {
    byId("label-says").textContent = error.message;
  } finally {
    busy = false;
  }
}

function showCounts(before, labels, following) {
  const counts = words.map((word) => `${number(labels.counts[word])} ${word}`).join(", ");
  byId("label-says").textContent = `${before} Labelled: ${counts}. ${following ? `Next: ${following.caption || "no caption"}` : ""}`.trim();
}
