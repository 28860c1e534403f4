"""Parts of `shardtalk caption`: what decides its captions, where it computes, what it reports."""
