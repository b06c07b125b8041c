//! Keeps the comments of proto files as documentation without letting rustdoc read them as anything else.
//!
//! Comments are written for people who read the proto file. Taken over as they are, an indented line would become a
//! code block that rustdoc compiles as a test, and `<name>` would be read as HTML.
//!
//! Invariant: nothing but comments is changed. prost-build itself escapes brackets and addresses; it does so inside of
//! code spans too, where the escape would show, so that is taken back afterwards.

use prost_build::Module;

/// The type of a proto file's description, as prost-build takes it.
pub(crate) type File = <ModuleRequest as Request>::File;

/// prost-build takes these pairs; naming the pair saves this package a dependency on prost-types.
type ModuleRequest = (Module, protox_file::FileDescriptorProto);
