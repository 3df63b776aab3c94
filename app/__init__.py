"""The HTTP side: checks submissions, queues them, and shows what Redis and the artifact store hold."""
