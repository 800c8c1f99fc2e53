// The map of stored embeddings: points, colours, a lasso that makes a filter, and pairs like the one that is clicked.

import { request, byId, create, number } from "./request.js";
import * as recipe from "./draft.js";
import { card } from "./pairs.js";

const NEAR = 9; // pixels between a click and the point that it means, at most
const STILL = 4; // pixels that a press may move and still be a click
const STRIDE = 60; // pixels that an arrow key moves the map
const CLOSER = 1.5; // a step of zooming by button or key
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const HUES = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#7f7f7f", "#1b9e77", "#7570b3"];
const MISSING = "#99999955";

let points; // { places, x, y } of the map that is shown
let extent = [1, 1]; // the largest coordinates
let colours = [];
let drawn; // the lasso, as points of the map
let inside = []; // places inside it
let view = { left: 0, top: 0, scale: 1 };
let onFilter = () => {};
let showError = () => {};
let painted = 0;

const canvas = () => byId("map-canvas");
const scorer = () => byId("map-of").value;

export function prepare(start, added, failed) {
  onFilter = added;
  showError = failed;
  byId("map-none").hidden = start.maps.length > 0;
  byId("map-controls").hidden = !start.maps.length;
  byId("map-of").replaceChildren(...start.maps.map((each) => create("option", {}, each)));
  byId("map-colour").replaceChildren(...["kept", "cluster", ...start.colours].map((each) => create("option", {}, each)));
  const safely = (action) => (event) => action(event).catch(showError);
  byId("map-show").onclick = safely(load);
  byId("map-of").onchange = safely(load);
  byId("map-colour").onchange = safely(colour);
  byId("map-in").onclick = () => closer(CLOSER);
  byId("map-out").onclick = () => closer(1 / CLOSER);
  byId("map-reset").onclick = () => { view = { left: 0, top: 0, scale: 1 }; paint(); };
  byId("map-select").onclick = safely(shown);
  byId("near-form").onsubmit = (event) => { event.preventDefault(); addFilter().catch(showError); };
  byId("lasso-none").onclick = clear;
  listen(safely);
  window.addEventListener("resize", paint);
}

// After a change of the recipe: what is kept has other colours.
export function settled() {
  return points && byId("map-colour").value === "kept" ? colour() : Promise.resolve();
}

async function load() {
  const wanted = scorer();
  byId("map-show").hidden = true;
  let answer;
  try {
    for (;;) {
      answer = await request("map", { scorer: wanted });
      if (answer.places) break;
      byId("map-says").textContent = progress(answer);
      byId("map-progress").hidden = false;
      byId("map-progress").max = answer.total || 1;
      byId("map-progress").value = answer.done;
      await new Promise((wake) => setTimeout(wake, 500));
    }
  } catch (error) {
    byId("map-show").hidden = false;
    byId("map-says").textContent = "";
    throw error;
  } finally {
    byId("map-progress").hidden = true;
  }
  if (wanted !== scorer()) return;
  points = answer;
  extent = [answer.x, answer.y].map((each) => each.reduce((most, value) => Math.max(most, value), 1));
  byId("map-body").hidden = false;
  byId("map-says").textContent = explained(answer);
  view = { left: 0, top: 0, scale: 1 };
  clear();
  await colour();
}

function progress(answer) {
  const part = answer.total ? `step ${number(answer.done)} of ${number(answer.total)}` : "reading embeddings";
  return `${answer.method} is being computed: ${part}. The rest of the page works meanwhile.`;
}

function explained(answer) {
  const sample = answer.sampled ? `a sample of ${number(answer.sampled)} pictures` : `${number(answer.places.length)} pictures`;
  const method = answer.method === "PCA" ? "PCA, because the extra map (openTSNE) is not installed" : answer.method;
  return `${sample}, by ${method}. Near points are similar pictures; the axes mean nothing. Draw around points or select what is shown, click one, turn the wheel or use the keys + - and arrows to zoom and move.`;
}

async function colour() {
  if (!points) return;
  const by = byId("map-colour").value;
  const mine = points;
  const answer = await request("colours", { ...recipe.enabled(), scorer: scorer(), by });
  if (mine !== points || by !== byId("map-colour").value) return;
  const palette = answer.names ? named(by, answer.names) : ramp();
  colours = answer.values.map((each) => (each < 0 ? MISSING : palette[each]));
  legend(answer, palette);
  paint();
}

function named(by, names) {
  if (by !== "kept") return names.map((_, at) => HUES[at % HUES.length]);
  const style = getComputedStyle(document.documentElement);
  return [style.getPropertyValue("--mark").trim(), style.getPropertyValue("--kept").trim()];
}

function ramp() {
  return Array.from({ length: 256 }, (_, at) => {
    const place = (at / 255) * (RAMP.length - 1);
    const low = RAMP[Math.floor(place)];
    const high = RAMP[Math.ceil(place)];
    return `rgb(${low.map((each, part) => Math.round(each + (high[part] - each) * (place % 1))).join(" ")})`;
  });
}

function legend(answer, palette) {
  const key = (colour, text) => {
    const spot = create("i");
    spot.style.background = colour;
    return create("span", {}, spot, create("bdi", {}, text));
  };
  const short = (value) => String(Number(value.toPrecision(4)));
  const keys = answer.names
    ? answer.names.map((name, at) => key(palette[at], name))
    : [0, 64, 128, 191, 255].map((at) => key(palette[at], short(answer.low + ((answer.high - answer.low) * at) / 255)));
  if (answer.values.some((each) => each < 0)) keys.push(key(MISSING, "no score"));
  byId("map-key").replaceChildren(...keys);
}

// Pixels of the canvas for a coordinate of the map, and back. Unzoomed, the whole map fits, in the middle.
const EDGE = 12;
const unit = () =>
  Math.min((canvas().clientWidth - 2 * EDGE) / extent[0], (canvas().clientHeight - 2 * EDGE) / extent[1]) * view.scale;
const first = (size, reach) => (size - (reach * unit()) / view.scale) / 2;
const left = () => first(canvas().clientWidth, extent[0]) + view.left;
const top = () => first(canvas().clientHeight, extent[1]) + view.top;
const across = (x) => x * unit() + left();
const down = (y) => y * unit() + top();
const mapX = (pixel) => (pixel - left()) / unit();
const mapY = (pixel) => (pixel - top()) / unit();

function paint() {
  cancelAnimationFrame(painted);
  painted = requestAnimationFrame(() => {
    if (!points) return;
    const dense = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas();
    canvas().width = width * dense;
    canvas().height = height * dense;
    const pen = canvas().getContext("2d");
    pen.scale(dense, dense);
    const size = Math.max(1.5, Math.min(5, 260 / Math.sqrt(points.places.length))) * Math.min(2, Math.sqrt(view.scale));
    const [step, x, y] = [unit(), left() - size / 2, top() - size / 2];
    let last;
    for (let at = 0; at < points.places.length; at += 1) {
      if (colours[at] !== last) pen.fillStyle = last = colours[at];
      pen.fillRect(points.x[at] * step + x, points.y[at] * step + y, size, size);
    }
    if (drawn) outline(pen);
  });
}

function outline(pen) {
  pen.beginPath();
  for (const [x, y] of drawn) pen.lineTo(across(x), down(y));
  pen.closePath();
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  pen.lineWidth = 1.5;
  pen.stroke();
  pen.globalAlpha = 0.08;
  pen.fillStyle = pen.strokeStyle;
  pen.fill();
  pen.globalAlpha = 1;
}

function listen(safely) {
  const area = canvas();
  let from;
  const place = (event) => {
    const box = area.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  area.onpointerdown = (event) => {
    if (!points || event.button) return;
    area.setPointerCapture(event.pointerId);
    from = place(event);
    clear();
    drawn = [[mapX(from[0]), mapY(from[1])]];
  };
  area.onpointermove = (event) => {
    if (!from) return;
    const [x, y] = place(event);
    drawn.push([mapX(x), mapY(y)]);
    paint();
  };
  area.onpointerup = safely(async (event) => {
    if (!from) return;
    const [x, y] = place(event);
    const moved = Math.max(...drawn.map(([a, b]) => Math.hypot(across(a) - from[0], down(b) - from[1])));
    from = undefined;
    if (moved > STILL) return region();
    drawn = undefined;
    paint();
    const found = nearest(x, y);
    if (found !== undefined) await similar(found);
  });
  area.onpointercancel = () => { from = undefined; clear(); };
  area.addEventListener("wheel", (event) => {
    if (!points) return;
    event.preventDefault();
    zoom(...place(event), 1.0015 ** -event.deltaY);
  }, { passive: false });
  area.onkeydown = (event) => {
    const key = KEYS[event.key];
    if (!points || !key || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    key();
    paint();
  };
}

const KEYS = {
  ArrowLeft: () => { view.left += STRIDE; },
  ArrowRight: () => { view.left -= STRIDE; },
  ArrowUp: () => { view.top += STRIDE; },
  ArrowDown: () => { view.top -= STRIDE; },
  "+": () => closer(CLOSER),
  "=": () => closer(CLOSER),
  "-": () => closer(1 / CLOSER),
};

// About a pixel of the canvas, which stays where it is.
function zoom(x, y, factor) {
  const at = [mapX(x), mapY(y)];
  view.scale = Math.min(200, Math.max(0.5, view.scale * factor));
  view.left += x - across(at[0]);
  view.top += y - down(at[1]);
  paint();
}

const closer = (factor) => zoom(canvas().clientWidth / 2, canvas().clientHeight / 2, factor);

// The part of the map that is seen, as if it were drawn around: a lasso without a mouse.
function shown() {
  const [x1, x2] = [mapX(0), mapX(canvas().clientWidth)];
  const [y1, y2] = [mapY(0), mapY(canvas().clientHeight)];
  clear();
  drawn = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
  return region();
}

function nearest(x, y) {
  let best;
  let least = NEAR;
  for (let at = 0; at < points.places.length; at += 1) {
    const far = Math.hypot(across(points.x[at]) - x, down(points.y[at]) - y);
    if (far < least) [best, least] = [points.places[at], far];
  }
  return best;
}

// Whether a point is inside a polygon: a ray from it crosses an odd number of its sides.
function contains(polygon, x, y) {
  let odd = false;
  for (let at = 0, before = polygon.length - 1; at < polygon.length; before = at, at += 1) {
    const [x1, y1] = polygon[at];
    const [x2, y2] = polygon[before];
    if ((y1 > y) !== (y2 > y) && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) odd = !odd;
  }
  return odd;
}

function clear() {
  drawn = undefined;
  inside = [];
  byId("lasso").hidden = true;
  paint();
}

async function region() {
  inside = points.places.filter((_, at) => contains(drawn, points.x[at], points.y[at]));
  if (!inside.length) return clear();
  const mine = inside;
  byId("lasso").hidden = false;
  const count = inside.length === 1 ? "1 picture is" : `${number(inside.length)} pictures are`;
  byId("lasso-says").textContent = `${count} inside…`;
  byId("near-says").textContent = "";
  byId("lasso-pairs").replaceChildren();
  const body = { ...recipe.enabled(), scorer: scorer(), places: inside };
  const found = await request("region", body).catch((error) => {
    if (mine === inside) clear();
    throw error;
  });
  if (mine !== inside) return;
  const percent = (part) => `${Math.round(100 * part)} %`;
  byId("lasso-says").textContent = `${count} inside, ${number(found.kept)} kept. ` +
    `As a rule, near ${found.centres === 1 ? "one centre" : `one of ${found.centres} centres`}: it finds ` +
    `${percent(found.recall)} of those inside, and ${percent(found.precision)} of what it finds is inside.`;
  byId("lasso-pairs").replaceChildren(...found.pairs.map(card));
}

async function addFilter() {
  const made = await request("near", { ...recipe.enabled(), scorer: scorer(), places: inside, name: byId("near-name").value });
  byId("near-form").reset();
  byId("near-says").textContent = `Added the filter ${made.name}. Its centres are in ${made.file}. Copy the recipe as TOML into the source ` +
    `file, with the scorer ${made.scorer}; \`winnow score\` then computes its column for every run.`;
  onFilter(made);
}

// Pairs like one of them, by picture and by text.
export async function similar(place) {
  const found = await request("similar", { ...recipe.enabled(), scorer: scorer(), place });
  for (const side of ["picture", "text"]) {
    byId(`similar-${side}`).replaceChildren(...found[side].map(card));
    byId(`similar-${side}-none`).hidden = found[side].length > 0;
  }
  byId("similar-to").replaceChildren(card(found.pair));
  byId("similar").hidden = false;
}
