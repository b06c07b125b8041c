//! Maps and sets whose keys are identities: a hash that costs little and cannot be foreseen.
//!
//! Every message is looked up by its id a dozen times on its way. The hash of the standard library takes longer for that than
//! all that is done with what is found. Ids come from others, who must not be able to choose them so that all fall into one place; so
//! the hash depends on what each map draws by chance.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A map by identity.
pub(crate) type IdMap<K, V> = HashMap<K, V, RandomState>;

/// A set of identities.
pub(crate) type IdSet<K> = HashSet<K, RandomState>;
