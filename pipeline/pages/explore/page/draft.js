// The recipe on the page: its filters, each on or off. Listeners are called on every change.

export const draft = { name: "", filters: [], distinct: null, selection: null, other: null };

const listeners = [];

export function onChange(listener) {
  listeners.push(listener);
}

// `whole`: filters were added or removed, and not only a number changed.
export function changed(whole) {
  for (const listener of listeners) listener(whole);
}

export function load(recipe) {
  draft.name = recipe.name;
  draft.filters = recipe.filters.map((each) => ({ ...each, on: true, handle: each.handle && { ...each.handle } }));
  draft.distinct = recipe.distinct && { ...recipe.distinct, on: true };
  draft.selection = recipe.selection && { ...recipe.selection, on: true };
  changed(true);
}

function plain({ filters, distinct, selection }) {
  return {
    filters: filters.map(({ name, sql, why }) => ({ name, sql, why })),
    distinct: distinct && { radius: distinct.radius, best_by: distinct.best_by, of: distinct.of },
    selection: selection && selection.settings,
  };
}

// The filters that are on, as the server expects a recipe.
export function enabled() {
  return plain(snapshot());
}

// A copy of the draft, as a recipe to start from.
export function snapshot() {
  return {
    filters: draft.filters.filter((each) => each.on).map((each) => ({ ...each, handle: each.handle && { ...each.handle } })),
    distinct: draft.distinct?.on ? { ...draft.distinct } : null,
    selection: draft.selection?.on ? { ...draft.selection } : null,
  };
}

// The draft and the recipe that it is compared with.
export function comparison() {
  return { ...enabled(), other: draft.other && plain(draft.other) };
}

export function add(name, sql, handle = null, why = "") {
  const filter = { name: unused(name), sql, why, on: true, handle };
  draft.filters.push(filter);
  changed(true);
  return filter;
}

export function remove(filter) {
  draft.filters = draft.filters.filter((each) => each !== filter);
  if (draft.distinct === filter) draft.distinct = null;
  if (draft.selection === filter) draft.selection = null;
  changed(true);
}

export function move(filter, text) {
  filter.handle.number = text;
  filter.sql = filter.handle.before + text + filter.handle.after;
  changed(false);
}

export function turn(filter, on) {
  filter.on = on;
  changed(false);
}

// The filter that a slider moves: the first that compares this column with a number in this direction.
export function filterOf(column, high) {
  const found = draft.filters.filter((each) => {
    const handle = each.handle;
    return handle && !handle.share && handle.column.toLowerCase() === column.toLowerCase() && handle.keeps_high === high;
  });
  return found.find((each) => each.on) ?? found[0];
}

export function addThreshold(column, high, text) {
  const quoted = /^[a-z_][a-z0-9_]*$/.test(column) ? column : `"${column}"`;
  const operator = high ? ">=" : "<=";
  const handle = { column, operator, number: text, before: `${quoted} ${operator} `, after: "", share: false, keeps_high: high };
  const plain = column.toLowerCase().replace(/[^a-z0-9_]/g, "").replaceAll("_", "-").replace(/^[^a-z]+/, "").slice(0, 50);
  return add(`${plain || "score"}-${high ? "least" : "most"}`, handle.before + text, handle);
}

function unused(name) {
  const taken = new Set(draft.filters.map((each) => each.name));
  let free = name;
  for (let again = 2; taken.has(free); again += 1) free = `${name.slice(0, 60)}-${again}`;
  return free;
}
