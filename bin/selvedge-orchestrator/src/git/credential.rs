//! Credentials of hosted repositories: API tokens that open one repository and nothing else.
//!
//! Such a token's scope is a selector that names the repository by id. The API refuses tokens with such a scope
//! ([`of`]), so a stolen Git credential can do no more than Git with that one repository.

use fleet::{Caller, Grant, Role, Scope, Selector};

/// The label that marks them.
const LABEL: &str = "git.selvedge.dev/repository";

/// The scope of a credential of a repository.
pub(crate) fn scope(repository: &str) -> Result<Scope, fleet::Error> {
    Selector::parse(&format!("{LABEL}={repository}")).map(Scope::Selector)
}

/// The repository that a scope is for, if it is one of these.
pub(crate) fn repository(scope: &Scope) -> Option<String> {
    match scope {
        Scope::Selector(selector) => selector
            .to_string()
            .strip_prefix(LABEL)?
            .strip_prefix('=')
            .map(str::to_owned),
        _ => None,
    }
}

/// The repository and role of a caller who holds a Git credential; `None` for everybody else.
pub(crate) fn of(caller: &Caller) -> Option<(String, Role)> {
    caller
        .grants
        .iter()
        .find_map(|Grant { role, scope }| repository(scope).map(|repository| (repository, *role)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_its_repository_and_no_other_does() {
        let id = "01900000-0000-7000-8000-000000000001";
        let scope = scope(id).unwrap();
        assert_eq!(repository(&scope).as_deref(), Some(id));
        let caller = Caller::user("t", "laptop", Role::Operator, scope);
        assert_eq!(of(&caller), Some((id.to_owned(), Role::Operator)));
        for other in [
            Scope::All,
            Scope::Site("x".into()),
            Scope::Selector(Selector::parse("region=eu").unwrap()),
        ] {
            assert_eq!(repository(&other), None);
        }
    }
}
