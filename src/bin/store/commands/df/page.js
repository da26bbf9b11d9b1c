
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const map = document.getElementById("map");
  const trail = document.getElementById("trail");
  const tip = document.getElementById("tip");
  const rows = [...document.querySelectorAll("#images tbody tr")];

  // A tile with less area than this, in square pixels, goes into one with other small ones.
  const LEAST = 90;
  const MOST = 1500;
  const HEAD = 19;

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (unit + 1 < units.length && bytes >= (unit ? 1023.95 : 1024)) {
      bytes /= 1024;
      unit += 1;
    }
    return (unit ? bytes.toFixed(1) : String(bytes)) + "\u00a0" + units[unit];
  };
  const count = (n, thing) => n.toLocaleString("en") + " " + thing + (n === 1 ? "" : "s");
  const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const nameOf = (image) => image.names[0] || image.digest.slice(0, 19);
  // The registry and the path to a repository say little where there is little room.
  const shortName = (image) => nameOf(image).replace(/^.*\/(?=[^/])/, "");

  // --- What there is to draw: nodes with bytes, a class, and what lies in them ---------------

  const node = (label, cls, kids, more) => ({
    label,
    cls,
    kids,
    bytes: kids.reduce((sum, kid) => sum + kid.bytes, 0),
    count: kids.reduce((sum, kid) => sum + (kid.count || 1), 0),
    ...more,
  });

  const blobsOf = (group) => {
    const blobs = group.blobs.map(([digest, kind, mediaType, length, disk, leased]) => ({
      label: data.roles[kind],
      digest,
      mediaType: data.mediaTypes[mediaType] || "",
      length,
      leased: leased === 1,
      bytes: disk,
      cls: group.cls,
      group,
      images: group.images,
    }));
    if (group.smaller[0]) {
      const [number, disk] = group.smaller;
      const label = number.toLocaleString("en") + " smaller";
      blobs.push({ label, count: number, bytes: disk, cls: group.cls, group, images: group.images, smaller: true });
    }
    return blobs;
  };

  const groups = data.groups.map((group) => ({ group, blobs: blobsOf(group) }));
  const own = new Map();
  const sets = [];
  const rest = [];
  for (const { group, blobs } of groups) {
    if (group.cls === "u" && group.images.length) own.set(group.images[0], blobs);
    else if (group.cls === "s") {
      const some = group.images.slice(0, 2).map((n) => shortName(data.images[n]));
      const label = group.count === 2 && some.length === 2
        ? some.join(" + ")
        : count(group.count, "image") + (some.length ? ": " + some.join(", ") + "\u2026" : "");
      sets.push(node(label, "s", blobs, { images: group.images, set: true, zoom: true }));
    } else rest.push(node(group.label || "smaller images", group.cls, blobs, { zoom: true }));
  }
  const images = data.images.map((image, n) =>
    node(shortName(image), "u", own.get(n) || [], { image: n, images: [n], zoom: true }));
  const store = node("Store", "o", [
    ...images,
    node("shared by several images", "s", sets, { zoom: true }),
    ...rest,
    node("the store's own", "o", data.own.map(([label, disk]) => ({ label, bytes: disk, cls: "o" })),
      { zoom: true }),
  ].filter((kid) => kid.bytes > 0), { zoom: true });

  // All of an image: what it has alone, and what it shares.
  const whole = (n) => node(shortName(data.images[n]), "u", [
    ...(own.get(n) || []),
    ...sets.filter((set) => set.images.includes(n)).flatMap((set) => set.kids),
  ], { image: n, images: [n] });

  // --- Where it is drawn: a squarified treemap (Bruls, Huizing, van Wijk) --------------------

  const worst = (row, area, side) => {
    const thickness = area / side;
    let most = 1;
    for (const item of row) {
      const length = item.area / thickness;
      most = Math.max(most, length / thickness, thickness / length);
    }
    return most;
  };

  const squarify = (kids, x, y, w, h, place) => {
    const bytes = kids.reduce((sum, kid) => sum + kid.bytes, 0);
    const items = kids.map((kid) => ({ kid, area: (kid.bytes / bytes) * w * h }));
    let at = 0;
    while (at < items.length) {
      const side = Math.min(w, h);
      const row = [items[at]];
      let area = items[at].area;
      at += 1;
      while (at < items.length) {
        const longer = area + items[at].area;
        if (worst([...row, items[at]], longer, side) > worst(row, area, side)) break;
        row.push(items[at]);
        area = longer;
        at += 1;
      }
      const thickness = area / side;
      let along = 0;
      for (const item of row) {
        const length = item.area / thickness;
        if (w >= h) place(item.kid, x, y + along, thickness, length);
        else place(item.kid, x + along, y, length, thickness);
        along += length;
      }
      if (w >= h) { x += thickness; w -= thickness; } else { y += thickness; h -= thickness; }
    }
  };

  // The kids that can be seen, and one for all that cannot.
  const visible = (parent, area) => {
    const kids = parent.kids.filter((kid) => kid.bytes > 0).sort((a, b) => b.bytes - a.bytes);
    const least = (LEAST / area) * parent.bytes;
    let shown = kids.findIndex((kid, n) => n >= MOST || kid.bytes < least);
    // Not all of it as one: then nothing would be seen by going in.
    if (shown === 0) shown = Math.min(kids.length, MOST);
    const small = shown < 0 ? [] : kids.slice(shown);
    if (small.length < 2) return kids;
    const what = small.every((kid) => kid.image !== undefined) ? " smaller images" : " smaller";
    const number = small.reduce((sum, kid) => sum + (kid.smaller ? kid.count : 1), 0);
    const bytesOf = (cls) => small.reduce((sum, kid) => sum + (kid.cls === cls ? kid.bytes : 0), 0);
    const cls = ["u", "s", "k", "r", "o"].reduce((a, b) => (bytesOf(b) > bytesOf(a) ? b : a));
    const merged = node(number.toLocaleString("en") + what, cls, small, {
      merged: true,
      zoom: true,
      images: parent.images,
    });
    return [...kids.slice(0, shown), merged];
  };

  // What is written on a tile with nothing in it: names may be cut short, sizes may not.
  const words = (kid, w, h, depth) => {
    const room = (text) => w >= 12 + 6.8 * text.length;
    const lines = [];
    if (!kid.digest) lines.push([kid.label, "name", w >= 40]);
    else if (kid.label !== "layer" || depth === 0) lines.push([kid.label, "name", room(kid.label)]);
    lines.push([size(kid.bytes), "", room(size(kid.bytes))]);
    if (kid.digest && depth === 0) lines.push([kid.digest.slice(0, 19), "digest", room(kid.digest.slice(0, 19))]);
    return lines.filter(([, , fits]) => fits).slice(0, Math.floor((h - 6) / 15));
  };

  let tiles = [];
  const draw = (kid, parent, x, y, w, h, depth) => {
    const tile = element("div", "", "t " + kid.cls);
    const opens = kid.kids && !kid.merged && kid.kids.length > 0 && w >= 64 && h >= 48;
    Object.assign(tile.style, { left: x + "px", top: y + "px", width: w + "px", height: h + "px" });
    tile.dataset.bytes = kid.bytes;
    tile.dataset.depth = depth;
    tile.tabIndex = -1;
    tile.setAttribute("role", kid.zoom ? "button" : "img");
    tile.setAttribute("aria-label", kid.label + ", " + size(kid.bytes));
    tile.classList.toggle("open", Boolean(opens));
    tile.classList.toggle("in", depth > 0 || Boolean(kid.zoom));
    tile.classList.toggle("many", kid.cls === "s" && !opens);
    if (opens) {
      const head = element("div", "", "head");
      head.append(element("span", kid.label, "name"));
      if (w >= 120) head.append(element("span", size(kid.bytes)));
      tile.append(head);
    } else words(kid, w, h, depth).forEach(([text, how]) => tile.append(element("div", text, how)));
    const drawn = { tile, kid, parent, depth, x, y, w, h };
    tile.dataset.n = tiles.length;
    tile.dataset.in = parent ? parent.tile.dataset.n : "";
    tiles.push(drawn);
    map.append(tile);
    if (opens) {
      const [left, top, wide, high] = [x + 3, y + HEAD, w - 6, h - HEAD - 3];
      squarify(visible(kid, wide * high), left, top, wide, high, (inner, ...at) =>
        draw(inner, drawn, ...at, depth + 1));
    }
  };

  let path = [store];
  const show = (focus) => {
    const here = path[path.length - 1];
    map.replaceChildren();
    map.classList.remove("hot");
    tiles = [];
    tip.hidden = true;
    const { width, height } = map.getBoundingClientRect();
    if (here.bytes > 0) {
      squarify(visible(here, width * height), 0, 0, width, height, (kid, ...at) =>
        draw(kid, undefined, ...at, 0));
    }
    if (tiles.length) tiles[0].tile.tabIndex = 0;
    trail.replaceChildren();
    path.forEach((step, n) => {
      if (n) trail.append(element("span", "\u203a", "sep"));
      const label = step.image === undefined ? step.label : nameOf(data.images[step.image]);
      if (n === path.length - 1) {
        trail.append(element("span", label, "here"), element("span", "\u2002" + size(step.bytes)));
      } else {
        const button = element("button", label);
        button.type = "button";
        button.addEventListener("click", () => leave(n));
        trail.append(button);
      }
    });
    if (focus && tiles.length) tiles[0].tile.focus();
  };
  const enter = (kid, focus) => {
    if (!kid.zoom) return;
    path.push(kid.image === undefined ? kid : whole(kid.image));
    show(focus);
  };
  const leave = (n, focus) => {
    path = path.slice(0, n + 1);
    show(focus);
  };

  // --- What is pointed at: its tooltip, and who shares it ------------------------------------

  const facts = (kid) => {
    const lines = [];
    const image = kid.image === undefined ? undefined : data.images[kid.image];
    lines.push(["strong", image ? nameOf(image) : kid.digest ? kid.label + ", " + size(kid.bytes) : kid.label]);
    if (image) {
      image.names.slice(1).forEach((name) => lines.push(["div", name]));
      if (image.moreNames) lines.push(["div", "and " + count(image.moreNames, "more name")]);
      lines.push(["digest", image.digest]);
      lines.push(["div", size(image.total) + " on disk, " + size(image.shared) + " of it shared"]);
      lines.push(["div", "Removing it frees " + size(image.frees)]);
      if (image.problem) lines.push(["div", image.problem]);
      return lines;
    }
    if (kid.digest) {
      lines.push(["digest", kid.digest]);
      if (kid.mediaType) lines.push(["div", kid.mediaType]);
      if (kid.length !== kid.bytes) lines.push(["div", count(kid.length, "byte") + " long"]);
    } else {
      const files = kid.count > 1 ? ", " + count(kid.count, kid.merged || kid.kids ? "thing" : "blob") : "";
      lines.push(["div", size(kid.bytes) + files]);
    }
    const sharers = kid.images || [];
    if (kid.cls === "s" && sharers.length) {
      const all = kid.group ? kid.group.count : sharers.length;
      lines.push(["div", "Shared by " + count(all, "image") + ":"]);
      sharers.slice(0, 6).forEach((n) => lines.push(["div", nameOf(data.images[n])]));
      if (all > 6) lines.push(["div", "and " + (all - 6).toLocaleString("en") + " more"]);
    } else if (kid.digest && sharers.length === 1) {
      const of = nameOf(data.images[sharers[0]]);
      lines.push(["div", kid.leased ? "A lease keeps it too" : "Freed when " + of + " is removed"]);
    } else if (kid.digest && kid.group) lines.push(["div", kid.group.label]);
    return lines;
  };

  const point = (drawn, x, y) => {
    const kid = drawn.kid;
    tip.replaceChildren();
    for (const [how, text] of facts(kid)) {
      tip.append(how === "digest" ? element("div", text, "digest") : element(how, text));
    }
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 16 + width > innerWidth ? x - width - 12 : x + 16;
    const top = y + 16 + height > innerHeight ? y - height - 12 : y + 16;
    tip.style.left = Math.max(8, Math.min(left, innerWidth - width - 8)) + "px";
    tip.style.top = Math.max(8, Math.min(top, innerHeight - height - 8)) + "px";
    light(kid);
  };

  const light = (kid) => {
    const sharers = new Set(kid && kid.images);
    const related = (other) => {
      if (other === kid) return true;
      if (other.image !== undefined) return sharers.has(other.image);
      if (!other.images) return false;
      // Of an image all that it has; of what is shared that very set.
      return kid.image === undefined ? other.images === kid.images : other.images.includes(kid.image);
    };
    const lit = sharers.size > 0;
    map.classList.toggle("hot", lit);
    if (!lit && !kid) return;
    for (const drawn of tiles) {
      drawn.tile.classList.remove("hit", "at");
      if (drawn.kid === kid) drawn.tile.classList.add("at");
    }
    if (!lit) return;
    for (const drawn of tiles) {
      // What lies in an image is lit with it; so is what a tile lies in.
      const inside = drawn.parent && drawn.parent.kid.image !== undefined && related(drawn.parent.kid);
      if (!inside && !related(drawn.kid)) continue;
      for (let up = drawn; up; up = up.parent) up.tile.classList.add("hit");
    }
    rows.forEach((row) => row.classList.toggle("hit", sharers.has(Number(row.dataset.image))));
  };
  const unpoint = () => {
    tip.hidden = true;
    map.classList.remove("hot");
    tiles.forEach((drawn) => drawn.tile.classList.remove("hit", "at"));
    rows.forEach((row) => row.classList.remove("hit"));
  };

  const drawnAt = (target) => {
    const tile = target.closest(".t");
    return tile ? tiles[Number(tile.dataset.n)] : undefined;
  };
  const outermost = (drawn) => {
    while (drawn.parent) drawn = drawn.parent;
    return drawn;
  };

  map.addEventListener("pointermove", (event) => {
    const drawn = drawnAt(event.target);
    if (drawn) point(drawn, event.clientX, event.clientY);
  });
  map.addEventListener("pointerleave", unpoint);
  map.addEventListener("click", (event) => {
    const drawn = drawnAt(event.target);
    if (drawn) enter(outermost(drawn).kid, false);
  });
  map.addEventListener("focusin", (event) => {
    const drawn = drawnAt(event.target);
    if (!drawn || !drawn.tile.matches(":focus-visible")) return;
    const at = drawn.tile.getBoundingClientRect();
    point(drawn, at.left + Math.min(at.width / 2, 80), at.top + Math.min(at.height / 2, 40));
  });
  map.addEventListener("focusout", unpoint);

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const next = (from, [dx, dy]) => {
    const middle = (drawn) => [drawn.x + drawn.w / 2, drawn.y + drawn.h / 2];
    const [x, y] = middle(from);
    let best;
    for (const drawn of tiles) {
      if (drawn.parent || drawn === from) continue;
      const [a, b] = middle(drawn);
      const along = (a - x) * dx + (b - y) * dy;
      if (along <= 1) continue;
      const distance = along + 2 * Math.abs((a - x) * dy + (b - y) * dx);
      if (!best || distance < best.distance) best = { drawn, distance };
    }
    return best && best.drawn;
  };
  map.addEventListener("keydown", (event) => {
    const drawn = drawnAt(event.target);
    if (!drawn) return;
    if (ways[event.key]) {
      const to = next(drawn, ways[event.key]);
      if (to) {
        drawn.tile.tabIndex = -1;
        to.tile.tabIndex = 0;
        to.tile.focus();
      }
    } else if (event.key === "Enter" || event.key === " ") enter(drawn.kid, true);
    else if (event.key === "Escape" && path.length > 1) leave(path.length - 2, true);
    else return;
    event.preventDefault();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && path.length > 1) leave(path.length - 2, false);
  });

  // --- The table ------------------------------------------------------------------------------

  const table = document.getElementById("images");
  const sort = (column, heading) => {
    const down = heading.getAttribute("aria-sort") !== "descending" && column > 0
      || heading.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.cells[column].dataset.bytes;
    const order = (a, b) => (column
      ? Number(value(a)) - Number(value(b))
      : a.cells[0].textContent.localeCompare(b.cells[0].textContent));
    rows.sort((a, b) => (down ? order(b, a) : order(a, b)));
    table.tBodies[0].append(...rows);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = element("button", heading.textContent);
    button.type = "button";
    button.addEventListener("click", () => sort(column, heading));
    heading.replaceChildren(button);
  });
  table.tHead.rows[0].cells[1].setAttribute("aria-sort", "descending");
  for (const row of rows) {
    const n = Number(row.dataset.image);
    const name = row.querySelector("bdi");
    const button = element("button", name.textContent);
    button.type = "button";
    button.addEventListener("click", () => {
      path = [store];
      enter(images[n], false);
      map.scrollIntoView({ block: "center" });
    });
    name.replaceChildren(button);
    row.addEventListener("pointerenter", () => light(images[n]));
    row.addEventListener("pointerleave", unpoint);
  }

  document.getElementById("treemap").hidden = false;
  show(false);
  let drawn = map.clientWidth + "x" + map.clientHeight;
  addEventListener("resize", () => {
    const now = map.clientWidth + "x" + map.clientHeight;
    if (now === drawn) return;
    drawn = now;
    show(false);
  });
})();
