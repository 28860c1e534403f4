"""Parts of `shardtalk caption`: the description of the job, its flow, its devices, its progress and its summary."""
