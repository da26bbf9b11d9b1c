//! A page in headless Chromium, spoken to by the DevTools protocol over two pipes:
//!
//! ```ignore
//! #[path = "tools/browser.rs"]
//! mod browser;
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A browser with one page. Whatever host it asks for, it is sent to a port that nobody listens on.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It reads commands from descriptor 3 and writes to 4. `timeout` ends one that hangs.
        let mut child = Command::new("sh")
            .args(["-c", "exec timeout 300 chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--no-first-run", "--hide-scrollbars", "--no-proxy-server"])
            .arg("--host-resolver-rules=MAP * 127.0.0.1:9")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be run");
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let (session, last, events) = (None, 0, Vec::new());
        let mut browser = Self { child, to, from, session, last, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("chromium reads");
        loop {
            let mut answer = self.read();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message).expect("the pipe can be read");
        assert_eq!(message.pop(), Some(0), "chromium has ended: is it installed?");
        serde_json::from_slice(&message).expect("a message is JSON")
    }

    /// Opens a file in a window of this size, and waits until it is loaded. What happened before is
    /// forgotten.
    pub(crate) fn open(&mut self, page: &Path, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
        self.navigate("about:blank");
        self.navigate(&format!("file://{}", page.display()));
    }

    fn navigate(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", json!({ "url": url }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read();
            self.events.push(event);
        }
    }

    /// From now on pages are to be as for people who like them `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": scheme }));
    }

    /// What an expression of the page's own world is, by value.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let code = match key {
                "Enter" => {
                    json!({ "type": kind, "key": key, "code": key, "text": "\r", "windowsVirtualKeyCode": 13 })
                }
                _ => json!({ "type": kind, "key": key, "code": key }),
            };
            self.call("Input.dispatchKeyEvent", code);
        }
    }

    pub(crate) fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let button = if kind == "mouseMoved" { "none" } else { "left" };
        let event = json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", event);
    }

    /// What the page asked for, other than itself, and what it complained of.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let text = |event: &Value| -> Option<String> {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Network.requestWillBeSent" if params["type"] != "Document" => {
                    Some(format!("request: {}", params["request"]["url"]))
                }
                "Runtime.exceptionThrown" => Some(format!("exception: {params}")),
                "Runtime.consoleAPICalled" => Some(format!("console: {params}")),
                "Log.entryAdded" => Some(format!("log: {}", params["entry"]["text"])),
                "Audits.issueAdded" => Some(format!("issue: {}", params["issue"]["code"])),
                "Page.javascriptDialogOpening" => Some(format!("dialog: {params}")),
                _ => None,
            }
        };
        self.events.iter().filter_map(text).collect()
    }

    /// A picture of the window for people, if they want it:
    /// `LAYERSTORE_TEST_PICTURES=FOLDER`.
    pub(crate) fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("LAYERSTORE_TEST_PICTURES") else { return };
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = shot["data"].as_str().unwrap();
        let png = STANDARD.decode(data).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends by itself when the pipe does; `timeout` hands the signal on.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
