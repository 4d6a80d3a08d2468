//! SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), for cases of enhanced authentication (MQTT 5.0, 4.12).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// The method's name (RFC 7677, 4).
pub const METHOD: &str = "SCRAM-SHA-256";

/// One exchange.
pub struct Exchange {
    bare: String,
    password: String,
}

/// What the client says last, and what the server has to say then.
#[derive(Debug, PartialEq, Eq)]
pub struct Final {
    /// client-final-message.
    pub client: String,
    /// server-final-message.
    pub server: String,
}

impl Exchange {
    /// Begins as `user` with `nonce`.
    pub fn new(user: &str, password: &str, nonce: &str) -> Exchange {
        Exchange { bare: format!("n={user},r={nonce}"), password: password.to_owned() }
    }

    /// client-first-message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// Answers the server's first message (RFC 5802, 3).
    pub fn answer(&self, server_first: &str) -> Result<Final, String> {
        let field = |name: &str| {
            let found = server_first.split(',').find_map(|part| part.strip_prefix(name));
            found.ok_or_else(|| format!("no {name} in {server_first:?}"))
        };
        let nonce = field("r=")?;
        let salt = BASE64.decode(field("s=")?).map_err(|error| error.to_string())?;
        let rounds = field("i=")?.parse().map_err(|_| format!("wrong i= in {server_first:?}"))?;
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(self.password.as_bytes(), &salt, rounds);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, bit)| key ^ bit).collect();
        let server = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        Ok(Final {
            client: format!("{without_proof},p={}", BASE64.encode(proof)),
            server: format!("v={}", BASE64.encode(server)),
        })
    }
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length; the error type is that of ciphers.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677() {
        let exchange = Exchange::new("user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(exchange.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = exchange
            .answer("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
            .unwrap();
        assert!(last.client.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
        assert_eq!(last.server, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn an_answer_without_a_salt_is_a_mistake() {
        assert!(Exchange::new("u", "p", "n").answer("r=n1,i=4096").is_err());
    }
}
