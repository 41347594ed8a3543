
// All that is known of one node.
page.neededBy = page.nodes.map(() => []);
page.needs = page.nodes.map(() => []);
page.children = page.nodes.map(() => []);
page.nodes.forEach((node, number) => {
  if (node.parent !== null) page.children[node.parent].push(number);
});
// How it is known that one image needs another: the last item of an edge.
const ASKED = 0;
const HOW = ["said by the loader", "listed in the file", "by the verdict"];
for (const [start, end, how] of page.edges) {
  page.needs[start].push([end, how]);
  page.neededBy[end].push([start, how]);
}

function nodeLink(number) {
  return make("a", { href: `#n${number}` }, page.nodes[number].title);
}

const BAD = ["not-found", "refused", "failed"];

function stateTag(node) {
  return make("span", { class: `tag ${node.state}${BAD.includes(node.state) ? " bad" : ""}` }, node.word);
}

function listOf(title, items) {
  if (!items.length) return [];
  const list = make("ul", {}, ...items.map((item) => make("li", {}, ...[item].flat())));
  return [make("h4", {}, `${title} (${items.length})`), list];
}

function linkedList(title, pairs) {
  return listOf(title, pairs.map(([number, how]) => [nodeLink(number), make("span", { class: "how" }, HOW[how])]));
}

function placesOf(node) {
  if (!node.places || !node.places.length) return [];
  const parts = [make("h4", {}, `Places tried, in order (${node.places.length})`)];
  let last = null, list = null;
  for (const [rule, path, outcome, reason] of node.places) {
    if (rule !== last) {
      last = rule;
      list = make("ul", { class: "places" });
      parts.push(make("p", { class: "under-rule" }, rule), list);
    }
    const how = make("span", { class: "how" }, reason ? `${outcome}: ${reason}` : outcome);
    list.append(make("li", {}, make("code", {}, path), how));
  }
  return parts;
}

/** Fill the panel beside the graph. */
function showDetails(number) {
  const node = page.nodes[number];
  $("h-details").textContent = node.title;
  const parts = [];
  if (node.kind === "image") {
    parts.push(stateTag(node));
    if (node.reason) parts.push(make("p", { class: "reason" }, node.reason));
    const list = make("dl");
    for (const [label, value] of node.facts) {
      const shown = make("dd", {}, make("code", {}, value));
      if (label === "Path") shown.append(make("button", { type: "button", class: "copy", "data-copy": value }, "Copy"));
      list.append(make("dt", {}, label), shown);
    }
    parts.push(list, ...linkedList("Needed by", page.neededBy[number]), ...linkedList("Needs", page.needs[number]));
    const missing = (node.elsewhere || []).map((name) => [make("code", {}, name)]);
    parts.push(...listOf("Needs, not among the images of this page", missing), ...placesOf(node));
  } else {
    if (node.note) parts.push(make("p", {}, make("code", {}, node.note)));
    parts.push(...listOf("Brought", page.children[number].map((child) => [nodeLink(child)])));
  }
  $("facts").replaceChildren(...parts);
  $("details").scrollTop = 0;
}
