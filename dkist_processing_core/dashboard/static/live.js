// Keeps a page live, shows times in the zone of the viewer, and adds the comfort that needs a program. Every page works
// without it.

const parts = document.body.dataset.live;
const connection = document.getElementById("connection");
const lost = document.getElementById("lost");
const twoDigits = (value) => String(value).padStart(2, "0");

// Times and durations.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = (time) => `${time.getFullYear()}-${twoDigits(time.getMonth() + 1)}-${twoDigits(time.getDate())}`;
const still = matchMedia("(prefers-reduced-motion: reduce)");

function age(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${twoDigits(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${twoDigits(Math.floor((whole % 3600) / 60))} min`;
  if (whole > 99999 * 86400) return "over 99999 d";
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

// When each growing duration was rendered, by the clock of this page: the clocks of both machines may differ.
const rendered = new WeakMap();

const inUtc = /(\d{4}-\d\d-\d\d) (\d\d:\d\d)(:\d\d)? UTC/g;

function inZone(whole, date, minutes, seconds) {
  const time = new Date(`${date}T${minutes}${seconds ?? ""}Z`);
  if (Number.isNaN(time.valueOf())) return whole;
  const shown = clock.format(time);
  return `${day(time)} ${seconds ? shown : shown.slice(0, 5)}`;
}

function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-ago])")) {
    const time = new Date(element.dateTime);
    if (!Number.isNaN(time.valueOf())) element.textContent = `${day(time)} ${clock.format(time)}`;
  }
  // Texts without elements in them.
  for (const element of root.querySelectorAll("svg title, option")) {
    const text = element.textContent.replace(inUtc, inZone);
    if (text !== element.textContent) element.textContent = text;
  }
  for (const element of root.querySelectorAll("svg a[aria-label]")) {
    element.setAttribute("aria-label", element.getAttribute("aria-label").replace(inUtc, inZone));
  }
  const now = performance.now();
  for (const element of root.querySelectorAll("[data-seconds], [data-ago]")) rendered.set(element, now);
  tick(root);
}

function tick(root = document) {
  const now = performance.now();
  for (const element of root.querySelectorAll("[data-seconds], [data-ago]")) {
    const { seconds, ago } = element.dataset;
    const passed = (now - (rendered.get(element) ?? now)) / 1000;
    const text = seconds === undefined ? `${age(Number(ago) + passed)} ago` : age(Number(seconds) + passed);
    if (element.textContent !== text) element.textContent = text;
  }
}

function tickAgain() {
  if (!document.hidden) tick();
  setTimeout(tickAgain, still.matches ? 10000 : 1000);
}

// Replacing the parts: an element that is the same stays, with its focus, its selection and its place.

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || null : null);
const isAlike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
// What the viewer, or this program, has changed since the page was rendered.
const kept = { DETAILS: ["open"], INPUT: ["value"], BUTTON: ["hidden"] };

function update(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  const mine = kept[old.nodeName] ?? [];
  for (const { name, value } of fresh.attributes) {
    if (!mine.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!mine.includes(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  const chosen = old.nodeName === "SELECT" ? old.selectedOptions[0] : null;
  const isOfViewer = chosen && !chosen.defaultSelected;
  updateChildren(old, fresh);
  if (isOfViewer && chosen.isConnected) chosen.selected = true;
}

function updateChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) {
    const key = keyOf(child);
    if (keyed.has(key)) keyed.get(key).push(child);
    else keyed.set(key, [child]);
  }
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = keyOf(child) ? keyed.get(keyOf(child))?.shift() : next && isAlike(next, child) ? next : null;
    if (same && isAlike(same, child)) {
      if (same === next) next = next.nextSibling;
      else old.insertBefore(same, next);
      update(same, child);
    } else {
      if (child.nodeType === Node.ELEMENT_NODE && child.dataset.key) child.classList.add("changed");
      old.insertBefore(child, next);
    }
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

// Parts that wait since the viewer is selecting a text in them.
const waiting = new Map();

function isSelectedIn(element) {
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && selection.containsNode(element, true));
}

function replacePart(id, html) {
  const old = document.getElementById(id);
  if (!old) {
    // What the page explains to be missing is there now.
    if (document.getElementById("not_shown")) location.reload();
    return;
  }
  if (isSelectedIn(old)) {
    waiting.set(id, html);
    return;
  }
  waiting.delete(id);
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById(id);
  if (!fresh) return;
  showTimes(fresh);
  const focused = document.activeElement;
  update(old, fresh);
  showTimes(old);
  showButtons(old);
  // An element that was moved in its list has lost the focus.
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

document.addEventListener("selectionchange", () => {
  for (const [id, html] of [...waiting]) replacePart(id, html);
});

// The connection.

let lostAt = null;
let source = null;

function show(state, text = "") {
  connection.dataset.state = state;
  connection.textContent = state === "on" ? "live" : "not live";
  if (lost.textContent !== text) lost.textContent = text;
  lost.hidden = !text;
}

function lose(reason) {
  lostAt ??= new Date();
  show("away", `${reason}. This page is as it was at ${clock.format(lostAt)}.`);
}

function follow(address) {
  const mine = (source = new EventSource(address));
  source.addEventListener("parts", (event) => {
    lostAt = null;
    show("on");
    for (const [id, html] of Object.entries(JSON.parse(event.data))) replacePart(id, html);
  });
  source.addEventListener("away", (event) => {
    lose(`No change can be shown now: ${event.data}`);
  });
  source.addEventListener("gone", (event) => {
    mine.close();
    document.removeEventListener("visibilitychange", followIfSeen);
    show("away", event.data);
  });
  source.addEventListener("again", () => {
    mine.close();
    follow(address);
  });
  source.addEventListener("error", () => {
    // The browser connects again itself, except after a refusal, whose reason it does not show to this program.
    if (mine.readyState === EventSource.CLOSED) explainRefusal(mine, address);
    else lose("The connection to the dashboard is lost");
  });
  addEventListener("pagehide", () => mine.close(), { once: true });
}

async function explainRefusal(refused, address) {
  let reason = "The connection to the dashboard is lost";
  try {
    const answer = await fetch(address);
    // The page to log in takes the place of this one.
    if (answer.status === 401) location.reload();
    if (answer.ok) await answer.body.cancel();
    else reason = (await answer.json()).detail;
  } catch {
    // The dashboard is away, or a proxy answers for it.
  }
  if (refused !== source) return;
  lose(reason);
  setTimeout(() => refused === source && follow(address), 5000);
}

// A browser has six connections to a host for all its windows together: a page that is hidden has none.
function followIfSeen() {
  source?.close();
  source = null;
  if (!document.hidden) follow(parts);
}

// A page that the browser has kept and shows again.
addEventListener("pageshow", (event) => {
  if (event.persisted && parts) location.reload();
});

// Copy buttons, colours, keys.

function showButtons(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = !navigator.clipboard;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } catch {
    button.textContent = "not copied";
  }
  setTimeout(() => (button.textContent = "copy"), 2000);
});

const theme = document.getElementById("theme");

function press(chosen) {
  for (const button of theme.children) button.setAttribute("aria-pressed", String(button.dataset.theme === chosen));
}

theme.addEventListener("click", (event) => {
  const chosen = event.target.closest("button")?.dataset.theme;
  if (chosen === undefined) return;
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("theme", chosen);
  } catch {
    // The choice then lasts as long as the page.
  }
  press(chosen);
});

const places = { n: "/", r: "/runs", f: "/failures", b: "/bus" };
let goesAt = 0;

document.addEventListener("keydown", (event) => {
  const step = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
  const current = step && event.target.closest?.(".slider a");
  if (current) {
    const steps = [...current.closest(".slider").querySelectorAll("a")];
    steps[steps.indexOf(current) + step]?.focus();
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("find").focus();
  } else if (event.key === "g") {
    goesAt = event.timeStamp;
  } else if (event.timeStamp - goesAt < 1500 && places[event.key]) {
    location.assign(places[event.key]);
  }
});

press(document.documentElement.dataset.theme ?? "");
theme.hidden = false;
document.querySelector("footer .keys").hidden = false;
showButtons(document);
showTimes(document);
if (parts) tickAgain();
if (parts && "EventSource" in window) {
  followIfSeen();
  document.addEventListener("visibilitychange", followIfSeen);
}
