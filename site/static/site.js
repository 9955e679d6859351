// What the pages need beyond their theme: diagrams in its colours, and names for readers who listen.

const dark = () => document.documentElement.dataset.theme === "dark";
const PAPER = { background: "#ffffff", primaryColor: "#e4edf6", primaryTextColor: "#12304a", primaryBorderColor: "#2b5c8a",
                lineColor: "#44505c", textColor: "#12304a" };
const NIGHT = { background: "#121212", primaryColor: "#24384c", primaryTextColor: "#f2f6fa", primaryBorderColor: "#7fb2e0",
                lineColor: "#b9c4cf", textColor: "#f2f6fa", darkMode: true };

async function drawDiagrams() {
  mermaid.initialize({ startOnLoad: false, theme: "base", themeVariables: dark() ? NIGHT : PAPER });
  for (const [number, place] of document.querySelectorAll(".diagram").entries()) {
    // A diagram's own colours are meant for paper.
    const source = place.dataset.source.replace(/^\s*(classDef|style)\s.*$/gm, (line) => (dark() ? "" : line));
    const { svg } = await mermaid.render(`diagram-${number}`, source.replace(/:::\w+/g, (mark) => (dark() ? "" : mark)));
    place.innerHTML = svg;
  }
}

// The boxes of a flow chart in their order are what a listener needs of it.
function describe(source) {
  const boxes = [...source.matchAll(/[[({]+"?([^"\])}]+)"?[\])}]+/g)];
  return "Diagram: " + boxes.map((found) => found[1].replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").trim()).join("; ");
}

for (const block of document.querySelectorAll(".highlight-mermaid")) {
  const place = document.createElement("div");
  place.className = "diagram";
  place.dataset.source = block.textContent.trim();
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", describe(place.dataset.source));
  block.replaceWith(place);
}
if (document.querySelector(".diagram")) {
  let drawn = drawDiagrams(); // one after the other: mermaid draws one diagram at a time
  const again = () => (drawn = drawn.then(drawDiagrams));
  new MutationObserver(again).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}

// Names that the theme leaves out, or that differ from what is to be seen.
for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
for (const summary of document.querySelectorAll(".bd-sidebar-primary summary, .toctree-checkbox + summary, nav summary"))
  if (!summary.textContent.trim()) summary.setAttribute("aria-label", "Show what is below");
for (const bar of document.querySelectorAll(".bd-sidebar-primary")) {
  bar.setAttribute("role", "complementary");
  bar.setAttribute("aria-label", "Contents of the site");
}
for (const head of document.querySelectorAll("th"))
  if (!head.textContent.trim()) {
    const corner = document.createElement("td");
    head.replaceWith(corner);
  }

// What is too wide scrolls in itself, with the keyboard too.
function scrollable() {
  for (const box of document.querySelectorAll(".bd-article table, .bd-article pre, .bd-article .cell_output, .diagram"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
}
scrollable();
addEventListener("resize", scrollable);

// A question answers at once, with the reason of the option that was pressed. Others may be tried.
for (const card of document.querySelectorAll(".question")) {
  const answers = card.querySelector("details");
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  const reasons = answers.querySelectorAll("li");
  const options = [...card.querySelectorAll(".question-options > li")];
  const buttons = options.map((option, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...option.childNodes);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      button.className = said.className = reasons[number].className;
      said.innerHTML = reasons[number].innerHTML;
    });
    option.append(button);
    return button;
  });
  answers.replaceWith(said);
}
