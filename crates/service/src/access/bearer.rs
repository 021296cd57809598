//! The token in a call's metadata.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tsujiban_proto::error::{Kind, ServiceError};

/// The bearer token. A call with several authorization entries is refused, since it is unclear which one counts.
pub(super) fn token(headers: &HeaderMap) -> Result<&str, ServiceError> {
    let missing = || {
        ServiceError::new(
            Kind::Unauthenticated,
            "NO_TOKEN",
            "the call carries no token; send one in the metadata as \"authorization: Bearer <token>\"",
        )
    };
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        token(&headers).ok().map(str::to_owned)
    }

    #[test]
    fn one_bearer_token_and_nothing_else() {
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer abc"]).as_deref(), Some("abc"));
        for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearer "], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
