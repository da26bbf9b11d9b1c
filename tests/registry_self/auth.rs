//! Credentials: who gets in, with what, for how long.

use std::time::Duration;

use crate::eventually;
use crate::support::raw::{Client, Reply};
use crate::support::{Bearer, Registry};

/// `user:secret`, in Base64.
const USER: &str = "Basic dXNlcjpzZWNyZXQ=";
const TAGS: &str = "/v2/demo/tags/list";

fn with(client: &mut Client, path: &str, authorization: &str) -> Reply {
    client.ask("GET", path, &[("Authorization", authorization)]).unwrap()
}

fn bearer(bearer: Bearer) -> Registry {
    let registry = Registry::builder().bearer(bearer).start();
    registry.put_manifest("demo", Some("1"), "x", "{}");
    registry
}

fn token_path(scope: &str) -> String {
    format!("/token?service=registry.test&scope={scope}")
}

fn token(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    format!("Bearer {}", reply.json()["token"].as_str().expect("a token"))
}

#[test]
fn basic_lets_in_whoever_knows_the_password() {
    let registry = Registry::builder().basic("user", "secret").start();
    let mut client = Client::connect(&registry);
    for path in ["/v2/", TAGS] {
        let reply = client.get(path);
        assert_eq!(reply.status, 401);
        assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"registry.test\""));
        assert_eq!(reply.json()["errors"][0]["code"], "UNAUTHORIZED");
    }
    assert_eq!(with(&mut client, "/v2/", USER).status, 200);
    for wrong in ["Basic dXNlcjpzZWNyZXU=", "Basic", "Bearer dXNlcjpzZWNyZXQ="] {
        assert_eq!(with(&mut client, "/v2/", wrong).status, 401);
    }
}

#[test]
fn bearer_says_where_to_ask_and_for_what() {
    let registry = bearer(Bearer::anonymous());
    let realm = format!("Bearer realm=\"{}\",service=\"registry.test\"", registry.url("/token"));
    let mut client = Client::connect(&registry);
    assert_eq!(client.get("/v2/").header("www-authenticate"), Some(&*realm));
    let scoped = format!("{realm},scope=\"repository:demo:pull\"");
    let reply = client.get(TAGS);
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some(&*scoped)));

    let granted = token(&client.get(&token_path("repository:demo:pull")));
    assert_eq!(with(&mut client, TAGS, &granted).status, 200);
    assert_eq!(with(&mut client, "/v2/", &granted).status, 200);
    let forged = with(&mut client, TAGS, "Bearer forged");
    let invalid = format!("{scoped},error=\"invalid_token\"");
    assert_eq!((forged.status, forged.header("www-authenticate")), (401, Some(&*invalid)));
}

#[test]
fn a_token_is_good_for_its_scope_only() {
    let registry = bearer(Bearer::anonymous());
    let mut client = Client::connect(&registry);
    for (scope, status) in [
        ("repository:demo:pull,push", 200),
        ("repository%3Ademo%3Apull", 200),
        ("repository:other:pull&scope=repository:demo:pull", 200),
        ("repository:other:pull+repository:demo:pull", 200),
        ("repository:other:pull", 401),
        ("repository:demo:push", 401),
        ("", 401),
    ] {
        let granted = token(&client.get(&token_path(scope)));
        let reply = with(&mut client, TAGS, &granted);
        assert_eq!(reply.status, status, "{scope}");
        if status == 401 {
            let challenge = reply.header("www-authenticate").unwrap();
            assert!(challenge.ends_with(",error=\"insufficient_scope\""), "{challenge}");
        }
    }
}

#[test]
fn a_token_request_must_name_the_service() {
    let registry = bearer(Bearer::anonymous().service("this"));
    let mut client = Client::connect(&registry);
    for path in ["/token", "/token?service=other&scope=repository:demo:pull"] {
        assert_eq!(client.get(path).status, 400, "{path}");
    }
    assert_eq!(registry.tokens_issued(), 0);
    assert_eq!(client.get("/token?service=this").status, 200);
    assert_eq!(registry.tokens_issued(), 1);
}

#[test]
fn tokens_for_a_user_need_the_password() {
    let registry = bearer(Bearer::user("user", "secret"));
    let mut client = Client::connect(&registry);
    let path = token_path("repository:demo:pull");
    assert_eq!(client.get(&path).status, 401);
    assert_eq!(with(&mut client, &path, "Basic eDp5").status, 401);
    let granted = token(&with(&mut client, &path, USER));
    assert_eq!(with(&mut client, TAGS, &granted).status, 200);
    assert_eq!(with(&mut client, TAGS, USER).status, 401, "the registry itself takes no password");
}

#[test]
fn tokens_can_be_had_by_post() {
    let registry = bearer(Bearer::user("user", "secret").refresh_token("again"));
    let mut client = Client::connect(&registry);
    let mut post = |grant: &str| {
        let body = format!("{grant}&service=registry.test&scope=repository%3Ademo%3Apull");
        client.send_with_body("POST", "/token", &[], &body).unwrap();
        client.receive("POST").unwrap()
    };
    let reply = post("grant_type=password&username=user&password=secret");
    assert_eq!(reply.json()["refresh_token"], "again");
    let by_password = token(&reply);
    let by_refresh = token(&post("grant_type=refresh_token&refresh_token=again"));
    for wrong in [
        "grant_type=password&username=user&password=wrong",
        "grant_type=refresh_token&refresh_token=wrong",
        "grant_type=other",
    ] {
        assert_eq!(post(wrong).status, 401, "{wrong}");
    }
    for granted in [by_password, by_refresh] {
        assert_eq!(with(&mut client, TAGS, &granted).status, 200);
    }
}

#[test]
fn the_answer_has_the_fields_asked_for() {
    let ago = Duration::from_secs(3600);
    let settings = Bearer::anonymous().fields(&["access_token"]).expires_in(7200).issued_ago(ago);
    let registry = bearer(settings);
    let reply = Client::connect(&registry).get(&token_path("x:y:z"));
    let json = reply.json();
    assert!(json["access_token"].is_string());
    assert_eq!(json.get("token"), None);
    assert_eq!(json["expires_in"], 7200);
    let issued: jiff::Timestamp = json["issued_at"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(issued).as_secs();
    assert!((3600..3700).contains(&age), "{age}");

    let bare = Client::connect(&bearer(Bearer::anonymous())).get(&token_path("x:y:z")).json();
    assert_eq!(bare.as_object().unwrap().len(), 1);
    let both = Bearer::anonymous().fields(&["token", "access_token"]);
    let json = Client::connect(&bearer(both)).get(&token_path("x:y:z")).json();
    assert_eq!(json["token"], json["access_token"]);
}

#[test]
fn tokens_expire() {
    let over = [
        Bearer::anonymous().expires_in(0),
        Bearer::anonymous().lifetime(Duration::ZERO),
        Bearer::anonymous().expires_in(300).issued_ago(Duration::from_secs(300)),
        Bearer::anonymous().issued_ago(Duration::from_secs(60)),
    ];
    for settings in over {
        let registry = bearer(settings.clone());
        let mut client = Client::connect(&registry);
        let granted = token(&client.get(&token_path("repository:demo:pull")));
        assert_eq!(with(&mut client, TAGS, &granted).status, 401, "{settings:?}");
    }
    let registry = bearer(Bearer::anonymous().lifetime(Duration::from_millis(300)));
    let mut client = Client::connect(&registry);
    let granted = token(&client.get(&token_path("repository:demo:pull")));
    eventually(|| with(&mut client, TAGS, &granted).status == 401);
}

#[test]
fn tokens_can_be_revoked() {
    let registry = bearer(Bearer::anonymous());
    let mut client = Client::connect(&registry);
    let fresh = |client: &mut Client| token(&client.get(&token_path("repository:demo:pull")));
    let old = fresh(&mut client);
    assert_eq!(with(&mut client, TAGS, &old).status, 200);
    registry.revoke_tokens();
    assert_eq!(with(&mut client, TAGS, &old).status, 401);
    let new = fresh(&mut client);
    assert_ne!(new, old);
    assert_eq!(with(&mut client, TAGS, &new).status, 200);
}

#[test]
fn tokens_can_come_from_another_origin() {
    let tokens = Registry::start();
    let one = Registry::builder()
        .bearer(Bearer::anonymous().service("one"))
        .token_server(&tokens)
        .start();
    let two = Registry::builder()
        .bearer(Bearer::user("user", "secret").service("two"))
        .token_server(&tokens)
        .start();
    let mut asking = Client::connect(&two);
    let challenge = asking.get(TAGS).header("www-authenticate").unwrap().to_owned();
    assert!(challenge.contains(&format!("realm=\"{}\"", tokens.url("/token"))), "{challenge}");
    let scope = "&scope=repository:demo:pull";
    assert_eq!(asking.get(&format!("/token?service=two{scope}")).status, 404);

    let mut tokens = Client::connect(&tokens);
    let for_one = token(&tokens.get(&format!("/token?service=one{scope}")));
    let path = format!("/token?service=two{scope}");
    assert_eq!(tokens.get(&path).status, 401);
    let for_two = token(&with(&mut tokens, &path, USER));
    // 404: let in, and the repository is not there.
    assert_eq!(with(&mut Client::connect(&one), TAGS, &for_one).status, 404);
    assert_eq!(with(&mut asking, TAGS, &for_two).status, 404);
    assert_eq!(with(&mut asking, TAGS, &for_one).status, 401);
    assert_eq!((one.tokens_issued(), two.tokens_issued()), (1, 1));
}

#[test]
fn the_realm_can_be_anything() {
    let registry = bearer(Bearer::anonymous().realm("file:///etc/passwd"));
    let reply = Client::connect(&registry).get("/v2/");
    let challenge = reply.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"file:///etc/passwd\","), "{challenge}");
}
