"""The contract of the messages on RabbitMQ for programs in any language: an AsyncAPI document and its page."""
