//! Takes secrets out of what is kept.

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::Regex;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// What betrays a secret by its form, and what is left of it.
const FORMS: [(&str, &str); 7] = [
    // Also half of one, as the end of a log may have it, and with line ends escaped as in JSON.
    (
        r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)",
        "-----BEGIN ${1}PRIVATE KEY-----[redacted]",
    ),
    // The same in base64, as Kubernetes secrets have it: "-----BEGIN PRIVATE", or with RSA, EC, ENCRYPTED, OPENSSH before it.
    (
        r"LS0tLS1CRUdJTi(?:BQUklWQVRF|BSU0EgUFJJVkFUR|BFQyBQUklWQVRF|BFTkNSWVBURUQg|BPUEVOU1NI)[A-Za-z0-9+/=]*",
        "[redacted]",
    ),
    (r#"(?i)(authorization\\?["']?\s*[:=]\s*\\?["']?(?:(?:basic|bearer|digest)\s+)?)[^\s"'\\,]+"#, "${1}[redacted]"),
    (r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/-]{16,}=*", "${1}[redacted]"),
    // A JSON web token anywhere.
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", "[redacted]"),
    // JSON, also within a JSON string.
    (
        r#"(?i)(\\*"(?:secret|password|passwd|token|access_token|refresh_token|id_token|identitytoken|auth)\\*"\s*:\s*\\*")(?:[^"\\]|\\[^"])+"#,
        "${1}[redacted]",
    ),
    // Who is named in an address: https://user:password@host.
    (r"(://[^/\s:@]+:)[^/\s@]+@", "${1}[redacted]@"),
];

/// Takes secrets out of texts.
#[derive(Debug, Clone)]
pub struct Redactor {
    forms: Vec<(Regex, &'static str)>,
    given: Vec<String>,
}

impl Redactor {
    /// One that knows secrets by their form.
    ///
    /// # Errors
    /// A pattern is malformed: a fault of drydock.
    pub fn new() -> Result<Self, regex::Error> {
        let forms =
            FORMS.iter().map(|(form, left)| Ok((Regex::new(form)?, *left))).collect::<Result<_, regex::Error>>()?;
        Ok(Self { forms, given: Vec::new() })
    }

    /// Knows `secret` as well, by itself, in base64 and within JSON.
    pub fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let escaped = serde_json::Value::from(secret).to_string();
        self.given.extend([secret.to_owned(), STANDARD.encode(secret), escaped.trim_matches('"').to_owned()]);
        // A secret that is part of another would leave the rest of it.
        self.given.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self.given.dedup();
    }

    /// `text` without the secrets.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.given {
            if text.contains(secret) {
                text = text.replace(secret, REDACTED);
            }
        }
        for (form, left) in &self.forms {
            if let std::borrow::Cow::Owned(changed) = form.replace_all(&text, *left) {
                text = changed;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BEGIN: &str = concat!("-----BEGIN", " RSA PRIVATE KEY-----");
    const END: &str = concat!("-----END", " RSA PRIVATE KEY-----");

    fn redact(text: &str) -> String {
        let mut redactor = Redactor::new().unwrap();
        redactor.add("Harbor12345");
        redactor.add("pa\"ss");
        redactor.redact(text)
    }

    #[rstest]
    #[case::given("login -p Harbor12345 ok", "login -p [redacted] ok")]
    #[case::given_in_base64("HARBOR_ADMIN_PASSWORD: SGFyYm9yMTIzNDU=", "HARBOR_ADMIN_PASSWORD: [redacted]")]
    #[case::given_within_json(r#"{"p":"pa\"ss"}"#, r#"{"p":"[redacted]"}"#)]
    #[case::header(
        "> Authorization: Basic YWRtaW46eA==\n> Accept: */*",
        "> Authorization: Basic [redacted]\n> Accept: */*"
    )]
    #[case::header_for_curl("-H 'authorization: Bearer abc' x", "-H 'authorization: Bearer [redacted]' x")]
    #[case::header_in_json(
        r#"{"Authorization":"Basic YWRtaW4=","a":1}"#,
        r#"{"Authorization":"Basic [redacted]","a":1}"#
    )]
    #[case::header_without_scheme("Proxy-Authorization: abcdef", "Proxy-Authorization: [redacted]")]
    #[case::bearer("sent Bearer abcdefghijklmnop.q_r-s== to it", "sent Bearer [redacted] to it")]
    #[case::web_token("t=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln;", "t=[redacted];")]
    #[case::robot(
        r#"{"name":"robot$ci","secret":"Ab1","id":3}"#,
        r#"{"name":"robot$ci","secret":"[redacted]","id":3}"#
    )]
    #[case::robot_spaced(r#""secret" : "a\\b", "x": "y""#, r#""secret" : "[redacted]", "x": "y""#)]
    #[case::robot_in_a_string(r#""{\"secret\":\"Ab1\",\"id\":3}""#, r#""{\"secret\":\"[redacted]\",\"id\":3}""#)]
    #[case::address("https://admin:hunter2@harbor.example/v2/", "https://admin:[redacted]@harbor.example/v2/")]
    #[case::key_in_base64("tls.key: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVkt\ntls", "tls.key: [redacted]\ntls")]
    fn secrets_go(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(redact(text), expected);
    }

    #[test]
    fn keys_go_whole_escaped_or_cut_short() {
        let left = format!("{BEGIN}[redacted]");
        assert_eq!(redact(&format!("a\n{BEGIN}\nMIIE\nabc=\n{END}\nb")), format!("a\n{left}\nb"));
        assert_eq!(redact(&format!(r#""{BEGIN}\nMIIE\n{END}\n""#)), format!(r#""{left}\n""#));
        assert_eq!(redact(&format!("a\n{BEGIN}\nMIIE\nabc")), format!("a\n{left}"));
    }

    #[rstest]
    #[case("Www-Authenticate: Bearer realm=\"https://h:30003/service/token\",service=\"harbor-registry\"")]
    #[case("-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----")]
    #[case("ca.crt: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t")]
    #[case(r#"{"secret":{"secretName":"harbor-core"},"tokens":3,"password":null}"#)]
    #[case("https://172.18.0.3:30003/v2/library/app@sha256:aa")]
    #[case("tls: failed to verify certificate: x509: certificate signed by unknown authority")]
    fn the_rest_stays(#[case] text: &str) {
        assert_eq!(redact(text), text);
    }
}
