// A word for each pair of a sample, with the keyboard.

import { ask, at, made, number, picture } from "./ask.js";
import { asked } from "./draft.js";

const KEYS = { match: "m", "no match": "n", good: "g", "bad picture": "b" };

let words = [];
let queue = [];
let past = [];
let skipped = new Set();
let busy = false;

export function prepare(start) {
  words = start.words;
  const buttons = words.map((word) => made("button", { type: "button", "aria-keyshortcuts": KEYS[word], onclick: () => say(word) },
    made("kbd", { "aria-hidden": "true" }, KEYS[word]), word));
  at("words").replaceChildren(...buttons,
    made("button", { type: "button", "aria-keyshortcuts": "s", onclick: () => say(null) }, made("kbd", { "aria-hidden": "true" }, "s"), "skip"),
    made("button", { type: "button", "aria-keyshortcuts": "u", onclick: undo }, made("kbd", { "aria-hidden": "true" }, "u"), "undo"));
  at("label-toml").textContent =
    `[calibration]\nlabels = ${JSON.stringify(start.labels.file)}\ngood = ${JSON.stringify(start.good)}\n`;
  at("label-file").textContent = start.labels.file;
  at("label-command").textContent = `winnow calibrate ${start.source}`;
  tell("", start.labels);
  at("label-of").onchange = restart;
  at("labelling").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select, summary, pre")) return;
    const word = words.find((each) => KEYS[each] === event.key.toLowerCase());
    if (word) say(word);
    else if (event.key.toLowerCase() === "s") say(null);
    else if (event.key.toLowerCase() === "u") undo();
  });
}

export function open() {
  at("labelling").showModal();
  at("words").firstElementChild.focus();
  return restart();
}

async function restart() {
  queue = [];
  skipped = new Set();
  await next();
}

// The sample holds no pair that has a label; those that were skipped come first in its order and are passed over.
async function next() {
  if (!queue.length) {
    const body = { ...asked(), show: at("label-of").value, unlabelled: true, start: skipped.size };
    queue = (await ask("pairs", body)).pairs;
  }
  show();
}

function show() {
  const pair = queue[0];
  at("label-caption").textContent = pair ? pair.caption || "(no caption)" : "Every pair has a label.";
  const frame = at("labelling").querySelector(".picture");
  if (pair) picture(frame, pair, true);
  else frame.replaceChildren();
}

async function say(word) {
  if (busy || !queue.length) return;
  busy = true;
  try {
    const pair = queue[0];
    if (word) tell(`${word}.`, await ask("label", { place: pair.place, label: word }), queue[1]);
    else skipped.add(pair.place);
    past.push({ pair, word });
    queue.shift();
    await next();
  } catch (error) {
    at("label-says").textContent = error.message;
  } finally {
    busy = false;
  }
}

async function undo() {
  if (busy || !past.length) return;
  busy = true;
  try {
    const { pair, word } = past.pop();
    if (word) tell("Taken back.", await ask("label", { place: pair.place, label: null }), pair);
    else skipped.delete(pair.place);
    queue.unshift(pair);
    show();
  } catch (error) {
    at("label-says").textContent = error.message;
  } finally {
    busy = false;
  }
}

function tell(before, labels, following) {
  const counts = words.map((word) => `${number(labels.counts[word])} ${word}`).join(", ");
  at("label-says").textContent = `${before} Labelled: ${counts}. ${following ? `Next: ${following.caption || "no caption"}` : ""}`.trim();
}
