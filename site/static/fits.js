// The page "Does it fit?": dials, bars, and Python beneath. The first answer was computed when the site was built.

const LABELS = {
  model: "Model", config: "or its config.json, pasted", card: "Card", task: "Task", method: "Method",
  precision: "Precision", optim: "Optimizer", attn_implementation: "Attention",
  per_device_train_batch_size: "Texts at a time", sequence_length: "Tokens a text", num_gpus: "GPUs", sharding: "They share",
  activation_checkpointing: "Checkpoint activations", padded: "Texts are padded",
};
const OPTIONS = {
  model: FIRST.choices.models,
  card: Object.keys(FIRST.choices.cards),
  task: ["causal-lm", "masked-lm", "sequence-classification"],
  method: ["full", "lora", "qlora"],
  precision: ["fp32", "bf16", "fp16", "pure-bf16"],
  optim: ["adamw_torch_fused", "adamw_torch_foreach", "adamw_8bit", "adafactor", "sgd", "muon"],
  attn_implementation: ["eager", "sdpa", "flash_attention_2"],
  sharding: ["ddp", "zero1", "zero2", "zero3", "fsdp"],
};
const MOST = { per_device_train_batch_size: 1024, sequence_length: 131072, num_gpus: 1024 };
const ENCODERS = /bert|electra|deberta/;

const dials = document.getElementById("fits-dials");
const shown = document.getElementById("fits-answer");
const status = document.getElementById("fits-state");
const size = (bytes) => (bytes >= 1e9 ? (bytes / 1e9).toFixed(2) + " GB" : (bytes / 1e6).toFixed(1) + " MB");

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function buildDials(state) {
  for (const [name, value] of Object.entries(state)) {
    let input;
    if (OPTIONS[name]) {
      const word = (option) => (name === "card" ? `${option}, ${FIRST.choices.cards[option]} GB` : option);
      input = element("select", {}, ...OPTIONS[name].map((option) => element("option", { value: option }, word(option))));
    } else if (typeof value === "boolean") input = element("input", { type: "checkbox" });
    else if (typeof value === "number") input = element("input", { type: "number", min: 1, max: MOST[name], required: true });
    else input = element("textarea", { rows: 2, placeholder: '{"model_type": …}' });
    input.name = name;
    dials.append(element("label", {}, element("span", {}, LABELS[name]), input));
  }
}

function setDials(state) {
  for (const input of dials.elements)
    if (input.type === "checkbox") input.checked = state[input.name];
    else input.value = state[input.name];
}

function readDials() {
  const state = {};
  for (const input of dials.elements)
    if (input.type === "checkbox") state[input.name] = input.checked;
    else state[input.name] = input.type === "number" ? Number(input.value) : input.value;
  return state;
}

// A link that brings the dials back: only what differs from the start.
function link(state) {
  const changed = Object.entries(state).filter(([name, value]) => value !== FIRST.choices.start[name]);
  return new URLSearchParams(changed).toString();
}

function fromLink() {
  const state = { ...FIRST.choices.start };
  for (const [name, text] of new URLSearchParams(location.hash.slice(1)))
    if (typeof state[name] === "number") state[name] = Number(text);
    else if (typeof state[name] === "boolean") state[name] = text === "true";
    else if (name in state) state[name] = text;
  return state;
}

function drawAnswer(answer, state) {
  if (answer.error) {
    shown.replaceChildren(element("p", { className: "fits-error" }, answer.error));
    return;
  }
  const room = FIRST.choices.cards[state.card] * 1e9 - FIRST.choices.held_back;
  const totals = Object.values(answer.instants).map((parts) => Object.values(parts).reduce((sum, part) => sum + part, 0));
  const scale = Math.max(...totals, answer.peak);
  const bars = Object.entries(answer.instants).map(([instant, parts], number) => {
    const said = Object.entries(parts).filter(([, bytes]) => bytes > 0).map(([part, bytes]) => `${part} ${size(bytes)}`);
    const bar = element("div", { className: "fits-bar" });
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", `${instant}: ${size(totals[number])}; ${said.join(", ")}`);
    for (const [part, bytes] of Object.entries(parts))
      if (bytes > 0) {
        const piece = element("span", { title: `${part}: ${size(bytes)}` });
        piece.style.cssText = `width:${(100 * bytes) / scale}%;background:${FIRST.choices.colours[part]}`;
        bar.append(piece);
      }
    const row = element("div", { className: "fits-row" }, element("span", {}, instant), bar, element("span", {}, size(totals[number])));
    if (instant === answer.peak_instant) row.classList.add("fits-peak");
    return row;
  });
  const used = new Set(Object.values(answer.instants).flatMap((parts) => Object.keys(parts).filter((part) => parts[part] > 0)));
  const legend = Object.entries(FIRST.choices.colours).filter(([part]) => used.has(part)).map(([part, colour]) => {
    const mark = element("i");
    mark.style.background = colour;
    return element("span", {}, mark, part);
  });
  const cards = Object.entries(answer.cards).map(([name, fits]) => `${fits ? "✓" : "✗"} ${name} (${FIRST.choices.cards[name]} GB)`);
  const verdict = answer.peak <= room ? `It fits a ${state.card}` : `It does not fit a ${state.card}`;
  shown.replaceChildren(
    element("p", { className: "fits-verdict" }, `${size(answer.peak)} at the peak: ${answer.peak_instant}. ${verdict}.`),
    element("div", { className: "fits-bars" }, ...bars),
    element("p", { className: "fits-legend" }, ...legend),
    element("p", {}, cards.join("   ")),
    element("div", { id: "fits-advice" }),
    element("p", { className: "fits-title" }, answer.title),
  );
}

function drawAdvice(advice, state) {
  const rows = advice.changes.map((change) =>
    element("tr", {}, element("td", {}, change.words), element("td", {}, size(change.peak)), element("td", {}, change.fits ? "fits" : "")));
  const batch = advice.largest_batch ? `${advice.largest_batch.toLocaleString("en")} texts at a time` : "not even one text";
  const head = element("tr", {}, ...["What to change, one at a time", "Peak", state.card].map((word) => element("th", { scope: "col" }, word)));
  document.getElementById("fits-advice").replaceChildren(
    element("p", {}, `The most that fits a ${state.card} with the other dials as they are: ${batch}.`),
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)),
  );
}

// Python, from scripts: a page in a folder may load nothing else.
async function startPython() {
  await new Promise((done, failed) =>
    document.head.append(element("script", { src: new URL("_static/fits/python.js", document.baseURI).href, onload: done, onerror: failed })));
  const kinds = { mjs: "text/javascript", wasm: "application/wasm", zip: "application/zip" };
  const bytes = (name) => Uint8Array.from(atob(PYTHON_FILES[name]), (letter) => letter.charCodeAt(0));
  const fetchElsewhere = window.fetch;
  window.fetch = (address, options) => {
    const name = String(address).split("/").pop();
    if (!(name in PYTHON_FILES)) return fetchElsewhere(address, options);
    return Promise.resolve(new Response(bytes(name), { headers: { "Content-Type": kinds[name.split(".").pop()] } }));
  };
  const module = URL.createObjectURL(new Blob([bytes("pyodide.asm.mjs")], { type: kinds.mjs }));
  const python = await loadPyodide({
    indexURL: document.baseURI,
    createPyodideModule: (await import(module)).default,
    lockFileContents: JSON.stringify({ info: PYTHON_LOCK, packages: {} }),
  });
  window.fetch = fetchElsewhere;
  for (const [name, text] of Object.entries(OUR_FILES)) {
    python.FS.mkdirTree("/course/" + name.split("/").slice(0, -1).join("/"));
    python.FS.writeFile("/course/" + name, text);
  }
  return python.runPython(`
import sys
sys.path[:0] = ["/course", "/course/site"]
import fits
lambda name, state: fits.as_json(getattr(fits, name), state)
`);
}

let ask = null;
let starting = null;
let later = 0;

async function turn() {
  const state = readDials();
  history.replaceState(null, "", "#" + link(state));
  if (!dials.checkValidity()) return drawAnswer({ error: "A number is missing, or out of range." }, state);
  if (!ask) {
    status.textContent = "Starting Python …";
    starting ??= startPython();
    ask = await starting;
    status.textContent = "";
    return turn(); // the dials may have moved meanwhile
  }
  const answer = JSON.parse(ask("answer", JSON.stringify(state)));
  drawAnswer(answer, state);
  clearTimeout(later);
  if (!answer.error) later = setTimeout(() => drawAdvice(JSON.parse(ask("advice", JSON.stringify(state))), state), 30);
}

buildDials(FIRST.choices.start);
setDials(fromLink());
drawAnswer(FIRST.answer, FIRST.choices.start);
drawAdvice(FIRST.advice, FIRST.choices.start);
const failed = (error) => (status.textContent = `Python could not be started: ${error}`);
dials.addEventListener("input", (event) => {
  if (event.target.name === "model") dials.elements.task.value = ENCODERS.test(event.target.value) ? "sequence-classification" : "causal-lm";
  turn().catch(failed);
});
addEventListener("hashchange", () => (setDials(fromLink()), turn().catch(failed)));
if (location.hash) turn().catch(failed);
else setTimeout(() => (starting ??= startPython()).then((ready) => (ask = ready), failed), 200); // before the first turn
