//! A source that is looked for: read where it is found and may be read, off where not.

use weir_discovery::source::{Answer, Reading, Source, Trouble};
use weir_model::fact::kind;

/// Finds the source, if it is there now.
type Find = Box<dyn FnMut() -> Option<Box<dyn Source>> + Send>;

/// A source of pods and containers that may not be there.
pub(super) struct Auto {
    name: &'static str,
    find: Find,
    found: Option<Box<dyn Source>>,
    absent: Trouble,
}

impl Auto {
    /// What `find` finds, looked for with every reading until it is there; `absent` while it is not.
    pub(super) fn new(
        name: &'static str,
        find: impl FnMut() -> Option<Box<dyn Source>> + Send + 'static,
        absent: Trouble,
    ) -> Self {
        Self { name, find: Box::new(find), found: None, absent }
    }

    /// A source that cannot be read, and why.
    pub(super) fn never(name: &'static str, absent: Trouble) -> Self {
        Self::new(name, || None, absent)
    }
}

impl Source for Auto {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kinds(&self) -> &'static [&'static str] {
        self.found.as_ref().map_or(&[kind::POD, kind::CONTAINER], |found| found.kinds())
    }

    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
        Box::pin(async {
            let found = match &mut self.found {
                Some(found) => found,
                None => match (self.find)() {
                    Some(found) => self.found.insert(found),
                    None => return Err(self.absent.clone()),
                },
            };
            match found.read().await {
                // Nobody asked for it by name: what this user may not open is not used.
                Err(Trouble::Refused(why) | Trouble::Off(why)) => {
                    // Another one may be found.
                    self.found = None;
                    Err(Trouble::Off(why))
                }
                reading => reading,
            }
        })
    }

    fn changed(&mut self) -> Answer<'_, ()> {
        match &mut self.found {
            Some(found) => found.changed(),
            None => Box::pin(std::future::pending()),
        }
    }
}
