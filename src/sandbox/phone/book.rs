//! All phones, by account.

use std::collections::HashMap;

use super::{Phone, PhoneCtx};
use crate::sandbox::world::{NewPhone, SandboxError};

/// The phones of all accounts; a phone's position is its account's.
#[derive(Default)]
pub struct Phones {
    list: Vec<Phone>,
    by_number: HashMap<String, usize>,
}

impl Phones {
    /// Makes an account and its phone; gives back the account.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad number, [`SandboxError::Conflict`] when it is taken.
    pub fn add(&mut self, options: &NewPhone, ctx: &mut PhoneCtx<'_>) -> Result<u32, SandboxError> {
        let (mut phone, keys) = Phone::new(options, ctx.now, ctx.rng);
        let account = ctx.directory.add_account(options, keys, ctx.now)?;
        phone.registered(account, ctx);
        self.by_number.insert(options.number.clone(), self.list.len());
        self.list.push(phone);
        Ok(account)
    }

    /// The phone of an account.
    pub fn get_mut(&mut self, account: u32) -> Option<&mut Phone> {
        self.list.get_mut(account as usize)
    }

    /// The phone with this number.
    #[must_use]
    pub fn find(&self, number: &str) -> Option<&Phone> {
        self.list.get(*self.by_number.get(number)?)
    }

    /// The phone with this number.
    pub fn find_mut(&mut self, number: &str) -> Option<&mut Phone> {
        self.list.get_mut(*self.by_number.get(number)?)
    }
}
