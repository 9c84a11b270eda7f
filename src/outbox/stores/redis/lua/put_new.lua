-- Messages of one queue that are due at once and that nobody has put before: the news. False where one of that is not so,
-- or there is another format; nothing was written then, and put.lua knows more.  It has nothing to decide, and shares
-- nothing with the other scripts, for what they share takes longer than all of this.
-- ARGV: the time, or nothing; the name of the queue; their size together; then of each its id, the beginning of its row, that of its place, its envelope and content.
local ROW, ENVELOPE, CONTENT, IDS, META, NEWS, READY = unpack(KEYS)

local ids = {}
for at = 4, #ARGV, 5 do ids[#ids + 1] = ARGV[at] end
for _, text in ipairs(redis.call('HMGET', ROW, unpack(ids))) do
  if text then return false end
end
local meta = redis.call('HMGET', META, 'format', 'messages', 'bytes', ARGV[2])
if meta[1] ~= '1' then return false end

local now = ARGV[1]
if now == '' then
  local told = redis.call('TIME')
  now = told[1] .. string.format('%06d', tonumber(told[2]))
end
local due = string.sub(now, 1, 1) == '-' and '0' or now
local tail = now .. '\t' .. now .. '\t' .. now .. '\t\t0\t0\t\t'
local turn = string.rep('0', 18 - #due) .. due .. ':'
local rows, envelopes, contents, all, ready = {}, {}, {}, {}, {}
local at, to = 4, 1
for _, id in ipairs(ids) do
  local next = to + 1
  rows[to], rows[next] = id, ARGV[at + 1] .. tail
  ready[to], ready[next] = '0', ARGV[at + 2] .. turn .. id
  envelopes[to], envelopes[next] = id, ARGV[at + 3]
  contents[to], contents[next] = id, ARGV[at + 4]
  all[to], all[next] = '0', id
  at, to = at + 5, to + 2
end
redis.call('HSET', ROW, unpack(rows))
redis.call('HSET', ENVELOPE, unpack(envelopes))
redis.call('HSET', CONTENT, unpack(contents))
redis.call('ZADD', IDS, unpack(all))
redis.call('ZADD', READY, unpack(ready))
redis.call(
  'HSET', META, 'messages', string.format('%.0f', tonumber(meta[2] or '0') + #ids),
  'bytes', string.format('%.0f', tonumber(meta[3] or '0') + tonumber(ARGV[3]))
)
if not meta[4] then redis.call('HSET', META, ARGV[2], '1') end
return redis.call('XADD', NEWS, 'MAXLEN', '~', '100', '*', 'n', '1')
