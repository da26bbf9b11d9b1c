//! The page of `store df --html`, in Chromium.
#![cfg(feature = "cli")]

#[path = "tools/browser.rs"]
mod browser;
#[path = "tools/peers.rs"]
mod peers;
#[path = "tools/store.rs"]
mod store;
mod store_support;

use std::path::{Path, PathBuf};

use browser::Browser;
use layerstore::BlobStore;
use serde_json::{Value, json};
use store::Store;
use store_support::{add_image, noise, put};

const HOSTILE: [&str; 6] = [
    "</script><script>window.ran = 1</script>",
    "<img src=http://example.com/x onerror='window.ran = 2'>",
    "\"'><svg onload=window.ran=3>",
    "{{data}}{{script}}<!--",
    "evil\u{202e}gpj.exe",
    "=HYPERLINK(\"http://example.com\")&lt;",
];

/// Where every tile is, relative to the map.
const TILES: &str = "(() => { const at = document.getElementById('map').getBoundingClientRect();
    return [...document.querySelectorAll('#map .t')].map((tile) => {
        const r = tile.getBoundingClientRect(), d = tile.dataset;
        return [r.left - at.left, r.top - at.top, r.width, r.height, d.bytes, d.in, tile.className]; }) })()";
const MAP: &str = "(() => { const r = document.getElementById('map').getBoundingClientRect();
    return [r.width, r.height]; })()";

/// The least contrast of any text (WCAG 2.2, "contrast ratio"), and of which.
const CONTRAST: &str = "(() => {
    const parts = (text) => {
        const numbers = text.match(/[-0-9.e]+/g).map(Number);
        return text.startsWith('color(') ? numbers.slice(0, 3) : numbers.slice(0, 3).map((n) => n / 255);
    };
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = (text) => parts(text).map(linear)
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0.05);
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    let least = [99, ''];
    for (const element of document.querySelectorAll('h1, h2, p, dt, dd, li, th, td, small, .t div, #trail *')) {
        if (!element.textContent || !element.getClientRects().length) continue;
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
        const ratio = Math.max(a, b) / Math.min(a, b);
        if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 200)];
    }
    return least; })()";

#[derive(Clone, Debug)]
struct Tile {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
    bytes: f64,
    parent: Option<usize>,
    class: String,
}

fn tiles(browser: &mut Browser) -> Vec<Tile> {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let tile = |value: &Value| Tile {
        x: number(&value[0]).unwrap(),
        y: number(&value[1]).unwrap(),
        w: number(&value[2]).unwrap(),
        h: number(&value[3]).unwrap(),
        bytes: number(&value[4]).unwrap(),
        parent: number(&value[5]).map(|n| n as usize),
        class: value[6].as_str().unwrap().to_owned(),
    };
    browser.evaluate(TILES).as_array().unwrap().iter().map(tile).collect()
}

/// What is wrong with a map: tiles that overlap, stick out, leave room or are not as large as what
/// they stand for, among those with the same parent.
fn wrong(tiles: &[Tile], width: f64, height: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    let near = |a: f64, b: f64| (a - b).abs() <= b.abs() * 0.01 + 2.0;
    let parents: std::collections::BTreeSet<_> = tiles.iter().map(|tile| tile.parent).collect();
    for parent in parents {
        let inside: Vec<_> = tiles.iter().filter(|tile| tile.parent == parent).collect();
        let all = match parent {
            None => (0.0, 0.0, width, height),
            Some(n) => (tiles[n].x, tiles[n].y, tiles[n].w, tiles[n].h),
        };
        let (area, bytes) = inside
            .iter()
            .fold((0.0, 0.0), |(area, bytes), tile| (area + tile.w * tile.h, bytes + tile.bytes));
        for (n, tile) in inside.iter().enumerate() {
            // What layout rounds a length to is 1/64 of a pixel.
            let rounding = (tile.w + tile.h) / 32.0;
            if (tile.w * tile.h - area * tile.bytes / bytes).abs() > rounding + 0.5 {
                wrong.push(format!("its area is not its part of {area} and {bytes}: {tile:?}"));
            }
            let (right, bottom) = (tile.x + tile.w, tile.y + tile.h);
            let out = tile.x < all.0 - 0.1
                || tile.y < all.1 - 0.1
                || right > all.0 + all.2 + 0.1
                || bottom > all.1 + all.3 + 0.1;
            if out {
                wrong.push(format!("it sticks out of {all:?}: {tile:?}"));
            }
            for other in &inside[n + 1..] {
                let across = right.min(other.x + other.w) - tile.x.max(other.x);
                let down = bottom.min(other.y + other.h) - tile.y.max(other.y);
                if across > 0.1 && down > 0.1 {
                    wrong.push(format!("they overlap: {tile:?} {other:?}"));
                }
            }
        }
        if parent.is_none() && !near(area, width * height) {
            wrong.push(format!("the map has {} and its tiles {area}", width * height));
        }
        if let Some(n) = parent
            && !near(bytes, tiles[n].bytes)
        {
            wrong.push(format!("it has {bytes} in it: {:?}", tiles[n]));
        }
    }
    wrong
}

/// Opens a page, and says all that is wrong with it.
fn look(browser: &mut Browser, page: &Path, width: u32, height: u32) -> Vec<String> {
    browser.open(page, width, height);
    let size = browser.evaluate(MAP);
    let tiles = tiles(browser);
    let mut all = wrong(&tiles, size[0].as_f64().unwrap(), size[1].as_f64().unwrap());
    if tiles.len() < 3 {
        all.push(format!("only {} tiles", tiles.len()));
    }
    let wide = browser.evaluate("document.documentElement.scrollWidth").as_f64().unwrap();
    if wide > f64::from(width) {
        all.push(format!("it is {wide} wide"));
    }
    let ran = browser.evaluate("window.ran === undefined");
    if ran != json!(true) {
        all.push("a name has run".to_owned());
    }
    let contrast = browser.evaluate(CONTRAST);
    if !(4.5..99.0).contains(&contrast[0].as_f64().unwrap()) {
        all.push(format!("hard to read: {contrast}"));
    }
    all.extend(browser.complaints());
    all
}

/// A store with real images, names that do harm where they are not escaped, and everything else.
fn populated(folder: &Path) -> Store {
    let registry = peers::Registry::start(&folder.join("registry"));
    let store = Store::at(folder.join("store"));
    for (tag, _) in peers::TAGS {
        store.pull(&format!("{}/real/{tag}:v1", registry.address));
    }
    let library = BlobStore::open(store.root()).unwrap();
    for (n, name) in HOSTILE.into_iter().enumerate() {
        let [shared, own] = [noise(3 << 20, 1), noise(1 << 20, 2 + n as u64)];
        add_image(&library, &format!("hostile-{n}"), &[&shared, &own]);
        let index = store.root().join("index.json");
        let text = std::fs::read_to_string(&index).unwrap();
        let name = serde_json::to_string(name).unwrap();
        std::fs::write(&index, text.replace(&format!("\"hostile-{n}\""), &name)).unwrap();
    }
    put(&library, &library.lease("test").unwrap(), &noise(2 << 20, 9));
    store
}

fn page(store: &Store, folder: &Path) -> PathBuf {
    let page = folder.join("page.html");
    store.run(&["df", "--html", page.to_str().unwrap()]);
    page
}

#[test]
#[ignore = "needs chromium and Debian's docker-registry: run ./tests/all"]
fn a_map_that_is_true_and_does_no_harm() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let page = page(&store, temp.path());
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        for (width, height) in [(1280, 800), (400, 800), (2560, 1440)] {
            let which = format!("{scheme}-{width}x{height}");
            assert_eq!(look(&mut browser, &page, width, height), [""; 0], "{which}");
            browser.picture(&which);
        }
    }

    // The tiles together are what the store takes.
    let total = store.json(&["df"])["total"]["disk"].as_f64().unwrap();
    let all = tiles(&mut browser);
    let outer: Vec<_> = all.iter().filter(|tile| tile.parent.is_none()).collect();
    assert!((outer.iter().map(|tile| tile.bytes).sum::<f64>() - total).abs() < 64.0 * 1024.0);
    assert!(all.iter().any(|tile| tile.class.contains("many")), "what is shared is marked");

    // Names are text, with what hides or reorders text made visible.
    let text = browser.evaluate("document.getElementById('images').innerText");
    for name in HOSTILE {
        let shown = name.replace('\u{202e}', "\\u{202e}");
        assert!(text.as_str().unwrap().contains(&shown), "{shown}: {text}");
    }
    let scripts = browser.evaluate("document.scripts.length");
    assert_eq!(scripts, json!(2), "the data and the script");
}

#[test]
#[ignore = "needs chromium and Debian's docker-registry: run ./tests/all"]
fn pointer_and_keys_go_into_an_image_and_out() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let page = page(&store, temp.path());
    let mut browser = Browser::start();
    browser.open(&page, 1280, 800);
    browser.evaluate("document.getElementById('map').scrollIntoView()");
    let corner = "(() => { const r = document.getElementById('map').getBoundingClientRect();
        return [r.left, r.top]; })()";
    let corner = browser.evaluate(corner);
    let all = tiles(&mut browser);
    let visible = |browser: &mut Browser| browser.evaluate("document.getElementById('tip').hidden");

    // What is shared lights up with the images that share it.
    let shared = all.iter().find(|tile| tile.class.contains("many")).unwrap();
    let x = corner[0].as_f64().unwrap() + shared.x + shared.w / 2.0;
    let y = corner[1].as_f64().unwrap() + shared.y + shared.h / 2.0;
    browser.mouse("mouseMoved", x, y);
    assert_eq!(visible(&mut browser), json!(false));
    let tip = browser.evaluate("document.getElementById('tip').innerText");
    assert!(tip.as_str().unwrap().contains("sha256:"), "{tip}");
    assert!(tip.as_str().unwrap().contains("Shared by "), "{tip}");
    let lit = "document.querySelectorAll('#map.hot .hit').length";
    assert!(browser.evaluate(lit).as_u64().unwrap() >= 2);
    assert!(browser.evaluate("document.querySelectorAll('tr.hit').length").as_u64().unwrap() >= 2);

    browser.picture("pointed-at");

    // A click goes in, Escape goes out; so do Enter and the arrow keys.
    let trail = "document.getElementById('trail').innerText";
    let before = browser.evaluate(trail);
    for kind in ["mousePressed", "mouseReleased"] {
        browser.mouse(kind, x, y);
    }
    assert!(browser.evaluate(trail).as_str().unwrap().contains("shared by several images"));
    browser.press("Escape");
    assert_eq!(browser.evaluate(trail), before);
    browser.evaluate("document.querySelector('#map .t[tabindex=\"0\"]').focus()");
    let focus = "document.activeElement.getAttribute('aria-label')";
    let first = browser.evaluate(focus);
    browser.press("ArrowRight");
    browser.press("ArrowDown");
    assert_ne!(browser.evaluate(focus), first);
    browser.press("Enter");
    assert_ne!(browser.evaluate(trail), before);
    browser.press("Escape");
    assert_eq!(browser.evaluate(trail), before);

    // The table goes in too, and is sorted by what is clicked.
    browser.evaluate("document.querySelector('#images td button').click()");
    browser.picture("inside");
    let size = browser.evaluate(MAP);
    let inside = tiles(&mut browser);
    let shown = inside.iter().map(|tile| tile.bytes).sum::<f64>();
    let row = "Number(document.querySelector('#images td[data-bytes]').dataset.bytes)";
    assert_eq!(browser.evaluate(row).as_f64().unwrap(), shown, "all of the image");
    let all = wrong(&inside, size[0].as_f64().unwrap(), size[1].as_f64().unwrap());
    assert_eq!(all, [""; 0]);
    let column = "[...document.querySelectorAll('#images tbody tr')].map((row) => \
        Number(row.cells[4].dataset.bytes))";
    browser.evaluate("document.querySelectorAll('#images th button')[4].click()");
    let sorted = browser.evaluate(column);
    let sorted: Vec<u64> = sorted.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert!(sorted.len() >= 9 && sorted.is_sorted_by(|a, b| a >= b), "{sorted:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// What the tests above must notice.
#[test]
#[ignore = "needs chromium and Debian's docker-registry: run ./tests/all"]
fn planted_faults_are_seen() {
    let temp = tempfile::tempdir().unwrap();
    let store = populated(temp.path());
    let good = std::fs::read_to_string(page(&store, temp.path())).unwrap();
    // Without its policy, so that the script can be changed.
    let start = good.find("<meta http-equiv=").unwrap();
    let end = start + good[start..].find(">\n").unwrap() + 2;
    let lax = format!("{}{}", &good[..start], &good[end..]);
    let mut browser = Browser::start();
    let mut seen = |name: &str, page: &str| {
        let file = temp.path().join(format!("{name}.html"));
        std::fs::write(&file, page).unwrap();
        look(&mut browser, &file, 1280, 800).join("\n")
    };
    assert_eq!(seen("lax", &lax), "");
    let changed = |what: &str, to: &str| {
        assert!(lax.contains(what), "{what}");
        lax.replace(what, to)
    };
    let overlapping = changed("along += length;", "along += length - 1;");
    assert!(seen("overlapping", &overlapping).contains("they overlap"));
    let untrue = changed("area: (kid.bytes / bytes) * w * h", "area: w * h / kids.length");
    assert!(seen("untrue", &untrue).contains("its area is not"));
    let outside = changed("const HEAD = 19", "const HEAD = -4");
    assert!(seen("outside", &outside).contains("it sticks out"));
    let asking = changed("<main>", "<main><img src=\"http://example.com/x\">");
    assert!(seen("asking", &asking).contains("request: "));
    let failing = changed("show(false);\n", "show(false);\nconsole.error('x');\n");
    assert!(seen("failing", &failing).contains("console: "));
    let pale = changed("--muted: #59616c", "--muted: #8a929c");
    assert!(seen("pale", &pale).contains("hard to read"));
    let wide = changed("<main>", "<main><svg width=\"2000\" height=\"1\"></svg>");
    assert!(seen("wide", &wide).contains(" wide"));
    let running = changed("<main>", "<main><script>window.ran = 1</script>");
    assert!(seen("running", &running).contains("a name has run"));
    // And with its policy it does not run, nor ask.
    for inserted in ["<script>window.ran = 1</script>", "<img src=\"http://example.com/x\">"] {
        let refused = good.replace("<main>", &format!("<main>{inserted}"));
        let all = seen("refused", &refused);
        assert!(all.contains("log: ") && !all.contains("a name has run"), "{all}");
    }
}
