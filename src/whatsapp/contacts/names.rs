//! Push names: what people call themselves, learnt from their messages and from history.

use crate::whatsapp::{
    engine::{Engine, EngineError},
    jid::Jid,
    state::{StateRead, Table},
};

/// Longer names are cut: the apps allow 25 characters.
const MAX_NAME_BYTES: usize = 256;

impl Engine {
    /// Remembers the name of a user; writes only when it changed.
    pub(in crate::whatsapp) fn learn_push_name(
        &mut self,
        store: &dyn StateRead,
        user: &Jid,
        name: &str,
    ) -> Result<(), EngineError> {
        let name = clip(name);
        if name.is_empty() || !user.is_user() {
            return Ok(());
        }
        let key = user.to_user().to_string();
        if self.contacts.names.get(&key).is_some_and(|known| known == name) {
            return Ok(());
        }
        if self.state.get(store, Table::PushName, &key)?.as_deref() != Some(name.as_bytes()) {
            self.state.put(Table::PushName, key.as_str(), name.as_bytes().to_vec());
        }
        self.contacts.names.insert(key, name.to_owned());
        Ok(())
    }
}

fn clip(name: &str) -> &str {
    if name.len() <= MAX_NAME_BYTES {
        return name;
    }
    let end = (0..=MAX_NAME_BYTES).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlong_name_is_cut_between_characters() {
        let clipped = clip(&"ä".repeat(200)).len();
        assert_eq!(clipped, 256);
        assert_eq!(clip(&format!("a{}", "ä".repeat(200))).len(), 255);
        assert_eq!(clip("Bob"), "Bob");
    }
}
