//! Git repositories: registered once, their credentials sealed.
//!
//! | room | |
//! |---|---|
//! | `read` | lists, one, all of them for the task that looks at them |
//! | `write` | what people register, change and delete; what of it is refused |
//! | `credentials` | what signs in there, and what webhooks must know: sealed |
//! | `reach` | whether it can be reached, and its newest commits |

mod credentials;
mod reach;
mod read;
mod write;

pub(crate) use write::branch;

use crate::Fleet;

/// See [`Fleet::repositories`].
#[derive(Clone, Copy, Debug)]
pub struct Repositories<'a>(&'a Fleet);

impl Fleet {
    /// Git repositories.
    #[must_use]
    pub fn repositories(&self) -> Repositories<'_> {
        Repositories(self)
    }
}
