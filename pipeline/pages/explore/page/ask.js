// Questions to the server, each with the token. It came behind the # of the address, and leaves it at once.

const held = location.hash.slice(1);
if (held) {
  sessionStorage.setItem("token", held);
  history.replaceState(null, "", location.pathname);
}
const headers = { Authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` };

export async function ask(what, body) {
  const sent = body === undefined
    ? { headers }
    : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`/api/${what}`, sent);
  } catch {
    throw new Error("winnow explore does not answer: was it stopped?");
  }
  const told = await answer.json();
  if (answer.ok) return told;
  throw new Error(typeof told.detail === "string" ? told.detail : `${told.detail[0].loc.slice(1).join(" ")}: ${told.detail[0].msg}`);
}

// Fill a frame with a pair's picture. What is fetched too late for the frame's present pair is thrown away.
export async function picture(frame, pair, large = false) {
  const wanted = (frame.wanted = {});
  show(frame, "");
  const where = new URLSearchParams({ shard: pair.shard, member: pair.member, large });
  const answer = await fetch(`/api/picture?${where}`, { headers }).catch(() => null);
  const blob = answer?.ok ? await answer.blob() : null;
  if (frame.wanted !== wanted) return;
  if (!blob) return show(frame, "no picture here");
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
export function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export const at = (id) => document.getElementById(id);

export const number = (value) => value.toLocaleString("en");

export const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}%` : "–");
