-- A write of no meaning: once it is on the disk, all before it is.
go_on_when_full()
redis.call('HSET', META, 'lasting', '1')
return { now }
