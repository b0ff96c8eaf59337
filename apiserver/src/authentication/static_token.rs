//! The token file of `--token-auth-file`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use orlop_core::auth::{AuthenticationError, UserInfo};
use ring::digest;

use super::{TokenAuthenticator, TokenUser, intersection};

/// What is wrong with a token file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// A line has too few columns.
    #[error(
        "token file line {line}: must have at least 3 columns (token, user name, user uid), found {found}"
    )]
    Columns {
        /// The line, counted from one.
        line: usize,
        /// How many columns it has.
        found: usize,
    },
    /// A quoted field does not end, or has something behind its end.
    #[error("token file line {line}: {what}")]
    Quotes {
        /// The line where the field begins, counted from one.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// The tokens of a file, each with its user.
///
/// Tokens are looked up by their SHA-256 digest, so that the time of a look-up says nothing about how much of a token was right.
pub struct StaticTokens {
    users: BTreeMap<[u8; 32], UserInfo>,
    audiences: Vec<String>,
}

impl StaticTokens {
    /// Reads `token,user,uid,"group1,group2"` lines. Of two lines with the same token the later one counts; lines without a token are
    /// left out. The tokens are good for the audiences.
    ///
    /// # Errors
    /// When a line has fewer than three columns or a quote is out of place. No token is told.
    pub fn parse(text: &str, audiences: &[String]) -> Result<Self, TokenFileError> {
        let mut users = BTreeMap::new();
        for (line, record) in records(text)? {
            let [token, name, uid, rest @ ..] = record.as_slice() else {
                return Err(TokenFileError::Columns {
                    line,
                    found: record.len(),
                });
            };
            if token.is_empty() {
                tracing::warn!(
                    line,
                    "empty token has been found in the token file, skipping it"
                );
                continue;
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let mut user = UserInfo::new(name, groups.split(',').filter(|_| !groups.is_empty()));
            uid.clone_into(&mut user.uid);
            if users.insert(sha256(token), user).is_some() {
                tracing::warn!(line, "duplicate token has been found in the token file");
            }
        }
        Ok(Self {
            users,
            audiences: audiences.to_vec(),
        })
    }
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let audiences = intersection(&self.audiences, audiences);
        // A server without audiences of its own is one that tokens need not name.
        if audiences.is_empty() && !self.audiences.is_empty() {
            return Ok(None);
        }
        Ok(self.users.get(&sha256(token)).map(|user| TokenUser {
            user: user.clone(),
            audiences,
        }))
    }
}

pub(super) fn sha256(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    out
}

/// The records of a CSV text with the lines they begin on, RFC 4180: a quoted field may hold commas, line breaks and doubled quotes.
/// Spaces before a field are dropped, blank lines left out.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, TokenFileError> {
    let mut records = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while chars.peek().is_some() {
        let first = line;
        let mut record = Vec::new();
        loop {
            while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
            let mut field = String::new();
            if chars.next_if_eq(&'"').is_some() {
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                        Some('"') => break,
                        Some(c) => {
                            line += usize::from(c == '\n');
                            field.push(c);
                        }
                        None => {
                            return Err(TokenFileError::Quotes {
                                line: first,
                                what: "a quoted field does not end",
                            });
                        }
                    }
                }
                if chars
                    .peek()
                    .is_some_and(|c| !matches!(c, ',' | '\n' | '\r'))
                {
                    return Err(TokenFileError::Quotes {
                        line: first,
                        what: "text behind a quoted field",
                    });
                }
            } else {
                while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '\n')) {
                    if c == '"' {
                        return Err(TokenFileError::Quotes {
                            line: first,
                            what: "a quote inside a field without quotes",
                        });
                    }
                    field.push(c);
                }
                if field.ends_with('\r') {
                    field.pop();
                }
            }
            chars.next_if_eq(&'\r');
            record.push(field);
            match chars.next() {
                Some(',') => {}
                _ => break,
            }
        }
        line += 1;
        if record.len() > 1 || !record[0].is_empty() {
            records.push((first, record));
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIENCE: &str = "https://kubernetes.default.svc";

    async fn user(tokens: &StaticTokens, token: &str) -> Option<UserInfo> {
        tokens
            .authenticate_token(token, &[AUDIENCE.to_owned()])
            .await
            .unwrap()
            .map(|found| found.user)
    }

    #[tokio::test]
    async fn a_file_is_read_with_quotes_and_groups() {
        let file = "t1,admin,admin,system:masters\r\n\n t2 , bob,\"u,2\",\"g1,g2\",more\n\"t\"\"3\",eve,3\n,nobody,0\nt1,root,0,\"\"\n";
        let tokens = StaticTokens::parse(file, &[AUDIENCE.to_owned()]).unwrap();
        let admin = user(&tokens, "t1").await.unwrap();
        assert_eq!(
            (admin.name.as_str(), admin.groups.len()),
            ("root", 0),
            "the later line counts"
        );
        let bob = user(&tokens, "t2 ").await.unwrap();
        assert_eq!((bob.name.as_str(), bob.uid.as_str()), ("bob", "u,2"));
        assert_eq!(bob.groups, ["g1", "g2"]);
        assert_eq!(user(&tokens, "t\"3").await.unwrap().name, "eve");
        assert_eq!(user(&tokens, "").await, None);
        assert_eq!(user(&tokens, "t").await, None);
        assert!(
            tokens
                .authenticate_token("t1", &["other".to_owned()])
                .await
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_bad_line_is_named_without_its_token() {
        let cases = [
            (
                "t,u,1\nsecret,user\n",
                "token file line 2: must have at least 3 columns (token, user name, user uid), found 2",
            ),
            (
                "t,u,\"1\n\n",
                "token file line 1: a quoted field does not end",
            ),
            (
                "t,u,\"1\"2\n",
                "token file line 1: text behind a quoted field",
            ),
            (
                "a,b,\"c\nd\"\nt,u\"v,1\n",
                "token file line 3: a quote inside a field without quotes",
            ),
        ];
        for (file, error) in cases {
            assert_eq!(
                StaticTokens::parse(file, &[])
                    .err()
                    .map(|e| e.to_string())
                    .as_deref(),
                Some(error)
            );
        }
    }
}
