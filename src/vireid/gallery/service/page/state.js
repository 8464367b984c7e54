// What several parts of the page share.

export const state = {
  facets: null, // what the gallery holds
  view: null, // the search that is shown; null before the first one
  running: null, // AbortController of the search that runs
};

// A view is one search: { key, depth, query, asked, filter, answer, matches, verdicts, judged, current, problem }.
// query: { pictures: [{ blob, url, wide }], picture: id or null, title: match or null }.
