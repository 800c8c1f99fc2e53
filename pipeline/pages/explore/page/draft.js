// The recipe that is being made: filters, each on or off. Its listeners hear of every change.

export const draft = { name: "", filters: [], distinct: null, other: null };

const listeners = [];

export function onChange(listener) {
  listeners.push(listener);
}

// `whole` says that filters came or went, and not only a number.
export function changed(whole) {
  for (const listener of listeners) listener(whole);
}

export function load(recipe) {
  draft.name = recipe.name;
  draft.filters = recipe.filters.map((each) => ({ ...each, on: true, handle: each.handle && { ...each.handle } }));
  draft.distinct = recipe.distinct && { ...recipe.distinct, on: true };
  changed(true);
}

function plain({ filters, distinct }) {
  return {
    filters: filters.map(({ name, sql, why }) => ({ name, sql, why })),
    distinct: distinct && { radius: distinct.radius, best_by: distinct.best_by, of: distinct.of },
  };
}

export function sent() {
  return plain({ filters: draft.filters.filter((each) => each.on), distinct: draft.distinct?.on ? draft.distinct : null });
}

// The draft as it is now, as a recipe to start from again.
export function held() {
  return {
    filters: draft.filters.filter((each) => each.on).map((each) => ({ ...each, handle: each.handle && { ...each.handle } })),
    distinct: draft.distinct?.on ? { ...draft.distinct } : null,
  };
}

export function asked() {
  return { ...sent(), other: draft.other && plain(draft.other) };
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

// The filter that a card's slider moves: the first that compares this column with a number, from this side.
export function moving(column, high) {
  const found = draft.filters.filter((each) => {
    const handle = each.handle;
    return handle && !handle.share && handle.column.toLowerCase() === column.toLowerCase() && handle.keeps_high === high;
  });
  return found.find((each) => each.on) ?? found[0];
}

export function line(column, high, text) {
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
