//! What integration tests share.

pub mod authority;
pub mod client;
pub mod docker_registry;
pub mod faulty_relay;
pub mod http;
pub mod image;
pub mod image_folder;
pub mod keys;
pub mod moto;
pub mod notary;
pub mod process;
pub mod registry_api;
pub mod server;
pub mod small_disk;
pub mod token_server;
pub mod web;
