//! `$(VAR)` in commands, arguments and variables.

/// A text with every reference to a variable replaced. `$(NAME)` is the variable's value, and stays as it is if there is none of the
/// name; `$$` is a dollar that begins no reference; a dollar before anything else, and a reference that is not closed, mean themselves.
pub fn expand<V: AsRef<[u8]>>(text: &str, variable: impl Fn(&str) -> Option<V>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('$') {
            out.push(b'$');
            rest = more;
            continue;
        }
        let name = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        if let Some((name, more)) = name {
            match variable(name) {
                Some(value) => out.extend_from_slice(value.as_ref()),
                None => out.extend_from_slice(format!("$({name})").as_bytes()),
            }
            rest = more;
        } else {
            out.push(b'$');
            // The bracket of a reference that is not closed must not be looked at again: it is no reference's beginning.
            rest = after;
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("a"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        }
    }

    fn text(input: &str) -> String {
        String::from_utf8(expand(input, known)).unwrap()
    }

    #[test]
    fn references_are_replaced_and_all_else_is_kept() {
        for (input, output) in [
            ("", ""),
            ("$(A)", "a"),
            ("x$(A)y$(A)", "xaya"),
            ("$(EMPTY)", ""),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(REF)", "$(A)"),
            ("$", "$"),
            ("a$", "a$"),
            ("$A", "$A"),
            ("${A}", "${A}"),
            ("$(A", "$(A"),
            ("$(", "$("),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
            ("$(A)$(", "a$("),
            ("ü$(A)ü", "üaü"),
        ] {
            assert_eq!(text(input), output, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn what_has_no_dollar_is_left_alone(input in "[^$]*") {
            prop_assert_eq!(text(&input), input);
        }

        #[test]
        fn doubled_dollars_become_single_ones(input in any::<String>()) {
            prop_assert_eq!(text(&input.replace('$', "$$")), input);
        }

        #[test]
        fn a_reference_is_its_value_wherever_it_stands(before in "[^$]*", after in "[^$]*") {
            prop_assert_eq!(text(&format!("{before}$(A){after}")), format!("{before}a{after}"));
        }

        #[test]
        fn without_variables_only_doubled_dollars_change(input in "[$()A]*") {
            let nothing = |_: &str| None::<&str>;
            let once = String::from_utf8(expand(&input, nothing)).unwrap();
            let dollars = |text: &str| text.matches('$').count();
            prop_assert_eq!(input.len() - once.len(), dollars(&input) - dollars(&once));
        }
    }
}
