// The filters: cameras, sources, time, and which modality is searched.

import { byId, foreign, make, show } from "./dom.js";
import { count, days, plural, zone } from "./words.js";

const SHOWN = 100; // values of a list that are on the page at once
const FIND_FROM = 9; // a list with so many values can be searched
const order = new Intl.Collator(undefined, { numeric: true });

const local = (iso) => {
  if (!iso) return "";
  const time = new Date(iso);
  return new Date(time.getTime() - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
};
const utc = (value) => {
  const time = value ? new Date(value) : null;
  return time && !Number.isNaN(time.getTime()) ? time.toISOString() : null;
};

export const NO_FILTER = { cameras: [], sources: [], since: null, until: null, search_in: null };

/** The filter as pairs of name and value, for a form or an address. */
export function pairsOf(filter) {
  const pairs = [...filter.cameras.map((one) => ["cameras", one]), ...filter.sources.map((one) => ["sources", one])];
  for (const name of ["since", "until", "search_in"]) if (filter[name]) pairs.push([name, filter[name]]);
  return pairs;
}

/** A list of values with counts, of which several can be ticked. */
class Ticks {
  constructor(list, find, word, changed) {
    Object.assign(this, { list, find, word, changed, values: [], ticked: new Set() });
    find.addEventListener("input", () => this.draw());
  }

  setValues(values) {
    const known = new Set(values.map((one) => one.name));
    const gone = [...this.ticked].filter((name) => !known.has(name)).map((name) => ({ name, visible: 0, infrared: 0 }));
    this.values = [...values, ...gone].sort((one, other) => order.compare(one.name, other.name));
    show(this.find, this.values.length >= FIND_FROM);
    this.draw();
  }

  tick(names) {
    this.ticked = new Set(names);
    this.draw();
  }

  draw() {
    const wanted = this.find.value.trim().toLocaleLowerCase();
    const passing = this.values.filter((one) => one.name.toLocaleLowerCase().includes(wanted) || this.ticked.has(one.name));
    const ticked = passing.filter((one) => this.ticked.has(one.name));
    const others = passing.filter((one) => !this.ticked.has(one.name));
    const shown = new Set([...ticked, ...others.slice(0, Math.max(0, SHOWN - ticked.length))]);
    const rows = passing.filter((one) => shown.has(one)).map((one) => this.row(one));
    const left = passing.length - rows.length;
    if (left) rows.push(make("li", { class: "small faint" }, `${count(left)} more. Type to find one.`));
    this.list.replaceChildren(...rows);
  }

  row(one) {
    const box = make("input", { type: "checkbox", checked: this.ticked.has(one.name) });
    box.addEventListener("change", () => {
      if (box.checked) this.ticked.add(one.name);
      else this.ticked.delete(one.name);
      this.changed();
    });
    const all = one.visible + one.infrared;
    const counted = make("span", { class: "count", title: `${count(one.visible)} visible, ${count(one.infrared)} infrared` }, count(all));
    counted.append(make("span", { class: "hidden" }, all === 1 ? " picture" : " pictures"));
    return make("li", {}, make("label", { class: "check" }, box, make("span", { class: "name" }, foreign(one.name)), counted));
  }
}

export class Filters {
  /** @param changed called when people changed a filter */
  constructor(changed) {
    this.changed = changed;
    this.cameras = new Ticks(byId("cameras"), byId("cameras-find"), "camera", () => this.told());
    this.sources = new Ticks(byId("sources"), byId("sources-find"), "source", () => this.told());
    for (const name of ["since", "until"]) byId(name).addEventListener("change", () => this.told());
    for (const one of this.modalities()) one.addEventListener("change", () => this.told());
    byId("clear").addEventListener("click", () => this.clear());
    this.draw();
  }

  modalities() {
    return document.querySelectorAll("input[name=search-in]");
  }

  setFacets(facets) {
    this.cameras.setValues(facets.cameras);
    this.sources.setValues(facets.sources);
    show(byId("sources-field"), facets.sources.length > 1);
    const { first, last, without } = facets.times;
    const between = first ? ` The pictures are from ${days(first, last)}.` : "";
    const timeless = without ? ` ${plural(without, "picture has no time and passes", "pictures have no time and pass")} no filter by time.` : "";
    byId("times-hint").textContent = `In your time zone (${zone()}).${between}${timeless}`;
  }

  read() {
    const chosen = [...this.modalities()].find((one) => one.checked);
    return {
      cameras: [...this.cameras.ticked],
      sources: [...this.sources.ticked],
      since: utc(byId("since").value),
      until: utc(byId("until").value),
      search_in: chosen?.value || null,
    };
  }

  write(filter) {
    this.cameras.tick(filter.cameras);
    this.sources.tick(filter.sources);
    byId("since").value = local(filter.since);
    byId("until").value = local(filter.until);
    for (const one of this.modalities()) one.checked = one.value === (filter.search_in || "");
    this.draw();
  }

  clear() {
    this.write(NO_FILTER);
    this.changed();
  }

  /** Whether the times are in order. If not, the field says it. */
  valid() {
    const { since, until } = this.read();
    const wrong = since && until && since >= until ? "“Until” must be later than “Since”." : "";
    byId("until").setCustomValidity(wrong);
    byId("times-hint").classList.toggle("wrong", wrong !== "");
    if (wrong) byId("until").reportValidity();
    return !wrong;
  }

  told() {
    this.draw();
    if (this.valid()) this.changed();
  }

  draw() {
    const { cameras, sources, since, until } = this.read();
    const given = cameras.length + sources.length + (since ? 1 : 0) + (until ? 1 : 0);
    byId("filters-count").textContent = count(given);
    byId("filters-count").append(make("span", { class: "hidden" }, given === 1 ? " filter is set" : " filters are set"));
    show(byId("filters-count"), given > 0);
    show(byId("clear"), given > 0);
  }
}
