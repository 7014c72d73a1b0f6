//! A source that may not be there: read where it is found and may be read, off where not. One that was asked for by name,
//! or that was read before, is not off when it is away: it has failed, and what it told stays as it is. A container runtime
//! that is started anew ends no container.

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
    /// It was asked for by name or was read before: its absence is a failure.
    is_expected: bool,
}

impl Auto {
    /// What `find` finds, looked for with every reading until it is there; `absent` while it is not.
    pub(super) fn new(
        name: &'static str,
        find: impl FnMut() -> Option<Box<dyn Source>> + Send + 'static,
        absent: Trouble,
    ) -> Self {
        Self { name, find: Box::new(find), found: None, absent, is_expected: false }
    }

    /// One that was asked for by name.
    pub(super) fn named(name: &'static str, source: Box<dyn Source>) -> Self {
        let absent = Trouble::Failed("it was asked for by name".to_owned());
        Self { name, find: Box::new(|| None), found: Some(source), absent, is_expected: true }
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
                Err(Trouble::Off(why)) if self.is_expected => Err(Trouble::Failed(why)),
                Err(trouble) if self.is_expected => Err(trouble),
                // Nobody asked for it by name: what this user may not open is not used.
                Err(Trouble::Refused(why) | Trouble::Off(why)) => {
                    // Another one may be found.
                    self.found = None;
                    Err(Trouble::Off(why))
                }
                Err(failed) => Err(failed),
                Ok(reading) => {
                    self.is_expected = true;
                    Ok(reading)
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Answers one after the other.
    struct Scripted(VecDeque<Result<Reading, Trouble>>);

    impl Source for Scripted {
        fn name(&self) -> &'static str {
            "docker"
        }

        fn kinds(&self) -> &'static [&'static str] {
            &[kind::CONTAINER]
        }

        fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
            let next = self.0.pop_front().unwrap_or(Ok(Reading::Same));
            Box::pin(async { next })
        }
    }

    fn off() -> Result<Reading, Trouble> {
        Err(Trouble::Off("connection refused".into()))
    }

    fn refused() -> Result<Reading, Trouble> {
        Err(Trouble::Refused("not allowed".into()))
    }

    async fn states(mut source: Auto, readings: usize) -> Vec<&'static str> {
        let mut states = Vec::new();
        for _ in 0..readings {
            states.push(source.read().await.as_ref().map_or_else(Trouble::state, |_| "ok"));
        }
        states
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_off_until_it_is_read_and_failed_when_it_is_away_after_that() {
        let mut scripts = VecDeque::from([vec![refused()], vec![off()], vec![Ok(Reading::Same), off(), refused()]]);
        let find = move || scripts.pop_front().map(|script| Box::new(Scripted(script.into())) as Box<dyn Source>);
        let source = Auto::new("docker", find, Trouble::Off("nothing is there".into()));
        assert_eq!(states(source, 6).await, ["off", "off", "ok", "failed", "refused", "ok"]);
        let nowhere = Auto::new("docker", || None, Trouble::Off("nothing is there".into()));
        assert_eq!(states(nowhere, 2).await, ["off", "off"]);
    }

    #[tokio::test]
    async fn what_was_asked_for_by_name_is_never_off() {
        let script = [off(), refused(), Ok(Reading::Same), off()].into();
        let source = Auto::named("docker", Box::new(Scripted(script)));
        assert_eq!(states(source, 5).await, ["failed", "refused", "ok", "failed", "ok"]);
    }
}
