// Requests to the server, each with the token. It comes after the # of the address and is removed from it at once.

const token = location.hash.slice(1);
if (token) {
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname);
}
const headers = { Authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` };

export async function request(path, body) {
  const options = body === undefined
    ? { headers }
    : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`/api/${path}`, options);
  } catch {
    throw new Error("the server does not answer: run winnow explore again");
  }
  const { detail, ...result } = await answer.json();
  if (answer.ok) return result;
  if (typeof detail === "string") throw new Error(detail);
  throw new Error(`${detail[0].loc.slice(1).join(" ")}: ${detail[0].msg}`);
}

// Show a pair's picture in a frame. A picture that arrives after the frame shows another pair is dropped.
export async function picture(frame, pair, large = false) {
  const wanted = (frame.wanted = {});
  show(frame, "");
  const query = new URLSearchParams({ shard: pair.shard, member: pair.member, large });
  const answer = await fetch(`/api/picture?${query}`, { headers }).catch(() => null);
  const blob = answer?.ok ? await answer.blob() : null;
  if (frame.wanted !== wanted) return;
  if (!blob) return show(frame, "picture not stored");
  const image = new Image();
  image.alt = "";
  image.src = URL.createObjectURL(blob);
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  show(frame, image);
}

function show(frame, content) {
  frame.replaceChildren(content);
}

// An element with attributes, listeners (on...) and children; strings become text, never markup.
export function create(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

export const number = (value) => value.toLocaleString("en");

export const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}%` : "–");
