// A histogram for each score, with a slider for its lower threshold and one for its upper.

import { create, number } from "./request.js";
import * as recipe from "./draft.js";

const WIDTH = 320;
const HEIGHT = 76;
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// The bars, on the same scale as the slider below them.
function bars(counts, highest, axis, [least, most]) {
  const scale = WIDTH / (most - least);
  const width = axis.step * scale;
  return counts
    .map((count, at) => {
      const height = (count * HEIGHT) / highest;
      const x = ((axis.low - least) * scale + at * width).toFixed(2);
      return count ? `M${x} ${HEIGHT}v${(-height).toFixed(2)}h${(width * 0.94).toFixed(2)}v${height.toFixed(2)}z` : "";
    })
    .join("");
}

const SAYS = { ">=": "at least", ">": "more than", "<=": "at most", "<": "less than" };

// The step of a slider: a power of ten, so that there are at least a hundred steps.
function steps(axis) {
  const reach = axis.high - axis.low || 1;
  const step = 10 ** Math.floor(Math.log10(reach / 100));
  return axis.whole ? Math.max(1, step) : step;
}

class Slider {
  constructor(axis, high) {
    this.axis = axis;
    this.high = high;
    const step = steps(axis);
    this.digits = Math.max(0, -Math.round(Math.log10(step)));
    this.least = Math.floor(axis.low / step) * step;
    this.most = Math.ceil(axis.high / step) * step;
    const name = `${axis.column} ${high ? "at least" : "at most"}`;
    this.on = create("input", { type: "checkbox", onchange: () => this.turned() });
    this.says = create("span");
    this.range = create("input", {
      type: "range", min: this.least.toFixed(this.digits), max: this.most.toFixed(this.digits),
      step: step.toFixed(this.digits), "aria-label": name, oninput: () => this.moved(Number(this.range.value).toFixed(this.digits)),
    });
    this.number = create("input", { type: "number", step: "any", "aria-label": `${name}, as a number`, onchange: () => this.typed() });
    this.element = create("div", { class: "slide" }, create("label", {}, this.on, this.says), this.number, this.range);
    this.rest = (high ? Math.floor(axis.least / step) * step : Math.ceil(axis.most / step) * step).toFixed(this.digits);
  }

  get filter() {
    return recipe.filterOf(this.axis.column, this.high);
  }

  moved(text) {
    const filter = this.filter;
    if (!filter) recipe.addThreshold(this.axis.column, this.high, text);
    else {
      filter.on = true;
      recipe.move(filter, text);
    }
  }

  typed() {
    const value = this.number.valueAsNumber;
    if (!Number.isFinite(value)) return this.show();
    const text = this.number.value;
    this.moved(/^-?\d+(\.\d*)?$/.test(text) ? text : value.toFixed(20).replace(/0+$/, "").replace(/\.$/, ""));
  }

  turned() {
    if (!this.filter) recipe.addThreshold(this.axis.column, this.high, this.rest);
    else recipe.turn(this.filter, this.on.checked);
  }

  show() {
    const filter = this.filter;
    const text = filter ? filter.handle.number : this.rest;
    this.says.textContent = SAYS[filter?.handle.operator ?? (this.high ? ">=" : "<=")];
    this.on.checked = Boolean(filter?.on);
    this.element.classList.toggle("off", !filter?.on);
    if (this.range.value !== text) this.range.value = text;
    this.range.setAttribute("aria-valuetext", filter?.on ? text : `${text}, off`);
    if (document.activeElement !== this.number) this.number.value = text;
  }
}

class Card {
  constructor(axis) {
    this.axis = axis;
    this.highest = Math.max(1, ...axis.totals);
    this.sliders = [new Slider(axis, true), new Slider(axis, false)];
    this.reach = [this.sliders[0].least, this.sliders[0].most];
    this.kept = svg("path", { class: "kept" });
    this.marks = svg("g", {});
    this.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.plot.append(
      svg("path", { class: "all", d: bars(axis.totals, this.highest, axis, this.reach) }),
      this.kept,
      svg("line", { class: "floor", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
      this.marks,
    );
    const ends = create("div", { class: "ends" }, create("span", {}, short(axis.least)), create("span", {}, short(axis.most)));
    const unscored = axis.unscored ? [create("span", { class: "soft" }, `${number(axis.unscored)} pairs have no score`)] : [];
    this.element = create("div", { class: "card score", role: "group", "aria-label": axis.column },
      create("h3", {}, axis.column), this.plot, ends, ...unscored, ...this.sliders.map((each) => each.element));
  }

  show(answer) {
    const counts = answer.histograms[this.axis.column];
    this.kept.setAttribute("d", bars(counts, this.highest, this.axis, this.reach));
    const kept = counts.reduce((sum, count) => sum + count, 0);
    this.plot.setAttribute("aria-label",
      `Histogram from ${short(this.axis.least)} to ${short(this.axis.most)}: ${number(kept)} of ${number(this.axis.count)} scored pairs kept`);
    const [low, high] = this.reach;
    this.marks.replaceChildren(
      ...answer.lines
        .filter((line) => line.column === this.axis.column)
        .map((line) => Math.min(1, Math.max(0, (line.value - low) / (high - low))) * WIDTH)
        .map((x) => svg("line", { class: "mark", x1: x, x2: x, y1: -3, y2: HEIGHT })),
    );
  }
}

function short(value) {
  return String(Number(value.toPrecision(4)));
}

// The cards of a grid, which can be drawn again with other axes.
export class Scores {
  constructor(grid) {
    this.grid = grid;
    this.cards = [];
    recipe.onChange(() => this.sync());
  }

  // Scores that the published recipe has thresholds for come first.
  draw(axes, answer) {
    const named = new Set(answer.lines.map((line) => line.column));
    const order = [...axes].sort((one, two) => named.has(two.column) - named.has(one.column));
    this.cards = order.map((axis) => new Card(axis));
    this.grid.replaceChildren(...this.cards.map((card) => card.element));
    this.sync();
  }

  show(answer) {
    for (const card of this.cards) card.show(answer);
  }

  sync() {
    for (const card of this.cards) for (const slider of card.sliders) slider.show();
  }
}
