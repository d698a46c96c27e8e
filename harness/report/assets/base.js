// Elements, numbers and colours. Text reaches the page through text nodes and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Seven colours that people with any kind of colour blindness distinguish (Okabe and Ito), each with shapes beside.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "plus", "down", "star"];
const DASHES = ["", "7 3", "2 3", "8 3 2 3"];

// The same name looks the same in every figure.
function looks(names) {
  const sorted = [...new Set(names)].sort();
  return new Map(sorted.map((name, i) => [name, {
    colour: COLOURS[i % COLOURS.length],
    shape: SHAPES[i % SHAPES.length],
    dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length],
  }]));
}

function scaleOf(value) {
  const size = Math.abs(value);
  if (size >= 1e12) return [1e12, " T"];
  if (size >= 1e9) return [1e9, " G"];
  if (size >= 1e6) return [1e6, " M"];
  if (size >= 1e4) return [1e3, " k"];
  return [1, ""];
}

function number(value, half = 0) {
  if (value === null || value === undefined) return "–";
  const [factor, suffix] = scaleOf(value);
  const shown = half > Math.abs(value) * 1e-9; // less is rounding
  const decimals = Math.abs(value) < 10 ? 4 : Number.isInteger(value) && !suffix && !shown ? 0 : 2;
  const spread = shown ? ` ± ${(half / factor).toFixed(decimals)}` : "";
  return (value / factor).toFixed(decimals) + spread + suffix;
}

function short(value) {
  const [factor, suffix] = scaleOf(value);
  return String(Number((value / factor).toPrecision(4))) + suffix.trim();
}

// Lists of items by key, in the order in which keys are met.
function groupBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  return groups;
}

const words = (...parts) => parts.filter((part) => part !== "" && part !== null && part !== undefined).join(" · ");

function rowName(row) {
  const gallery = row.gallery_variant && row.gallery_variant !== row.variant ? `→ ${row.gallery_variant}` : "";
  return words(row.method, row.network, [row.variant, gallery].filter(Boolean).join(" "), row.input_of && `input of ${row.input_of}`, row.config,
    row.preset === "default" ? "" : row.preset, row.tuned ? "tuned" : "", row.code && `code ${row.code}`, row.files && `files ${row.files}`, row.numerics);
}

// Names of rows that share a figure: the method, and only where they differ.
function namesApart(rows) {
  const parts = ["network", "variant", "gallery_variant", "input_of", "config", "budget", "preset", "code", "files", "numerics"].filter((part) => new Set(rows.map((row) => row[part])).size > 1);
  const tuned = new Set(rows.map((row) => row.tuned)).size > 1;
  return (row) => words(row.method, ...parts.map((part) => (part === "gallery_variant" && row[part] ? `→ ${row[part]}` : row[part])), tuned && row.tuned ? "tuned" : "");
}

// `capacity 0.2`, `capacity 0.4`: what all names begin with, in whole words.
function commonStart(names) {
  const first = names[0].split(" ");
  let length = 0;
  while (length < first.length - 1 && names.every((name) => name.split(" ")[length] === first[length] && name.split(" ").length > length + 1)) length++;
  return first.slice(0, length).join(" ");
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function download(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function choice(label, options, chosen, onchange) {
  const select = h("select", { onchange: () => onchange(select.value) },
    options.map(([value, text]) => h("option", { value, selected: String(value) === String(chosen) }, text)));
  return h("label", {}, label, select);
}
