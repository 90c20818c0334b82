//! Who says whom a NATS server lets in: an operator, whose account has one user, told by signed tokens (JWT v2).

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// What is in a server's configuration, and the user's credentials beside it.
pub(super) struct Operator {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    pub(super) fn new() -> Self {
        Self { operator: KeyPair::new_operator(), account: KeyPair::new_account(), system: KeyPair::new_account() }
    }

    /// Whom the server trusts.
    pub(super) fn configuration(&self) -> String {
        let (account, system) = (self.account.public_key(), self.system.public_key());
        let operator = token(&self.operator, &self.operator, json!({ "type": "operator", "system_account": system }));
        let everything = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        });
        let with_streams = json!({ "type": "account", "limits": everything });
        format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{ {account}: {}, {system}: {} \
             }}\n",
            token(&self.operator, &self.account, with_streams),
            token(&self.operator, &self.system, json!({ "type": "account" })),
        )
    }

    /// A file with what a user of the account shows, or with what somebody else would.
    pub(super) fn credentials(&self, folder: &Path, trusted: bool) -> PathBuf {
        let (user, stranger) = (KeyPair::new_user(), KeyPair::new_account());
        let account = if trusted { &self.account } else { &stranger };
        let limits = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY \
             SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(account, &user, limits),
            user.seed().unwrap(),
        );
        let file = folder.join(if trusted { "user.creds" } else { "stranger.creds" });
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// What `issuer` says of `subject`.
fn token(issuer: &KeyPair, subject: &KeyPair, mut claims: Value) -> String {
    claims["version"] = json!(2);
    let key = subject.public_key();
    let claims = json!({ "jti": key, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "oncue", "sub": key, "nats": claims });
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encoded(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encoded(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
