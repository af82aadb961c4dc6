//! All phones, by account.

use rand_core::CryptoRngCore;

use super::{Phone, PhoneCtx};
use crate::{
    sandbox::{
        service::Service,
        world::{NewPhone, SandboxError},
    },
    whatsapp::ctx::Now,
};

/// The phones of all accounts; a phone's position is its account's.
#[derive(Default)]
pub struct Phones {
    list: Vec<Phone>,
}

impl Phones {
    /// Makes an account and its phone; gives back the account.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a bad number, [`SandboxError::Conflict`] when it is taken.
    pub fn add(
        &mut self,
        options: &NewPhone,
        service: &mut Service,
        rng: &mut dyn CryptoRngCore,
        now: Now,
    ) -> Result<u32, SandboxError> {
        let (mut phone, keys) = Phone::new(options, now, rng);
        let account = service.add_account(&options.number, &options.name, options.lid_migrated, keys, now)?;
        phone.registered(account, &mut PhoneCtx { directory: service, rng, now });
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
        self.list.iter().find(|phone| phone.number == number)
    }
}
