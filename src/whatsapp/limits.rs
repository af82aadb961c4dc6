//! Every number of the protocol core, with its reason.
