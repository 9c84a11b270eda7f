-- What this store is told from others by; args.fresh is it from now on where it had none.
go_on_when_full()
local identity = redis.call('HGET', META, 'store') or args.fresh
-- Also where it stood there: who asks waits until this is on the disk, and so is all before it.
redis.call('HSET', META, 'store', identity)
return { now, identity }
