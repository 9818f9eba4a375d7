//! What integration tests share.

pub mod docker_registry;
pub mod image_folder;
