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
local meta = redis.call('HMGET', META, 'format', 'messages', 'bytes')
if meta[1] ~= '1' then return false end
-- A counter that is no number counts from nothing.
local function counted(text)
  return text and #text <= 15 and string.match(text, '^%-?%d+$') and tonumber(text) or 0
end
local messages, bytes = counted(meta[2]) + #ids, counted(meta[3]) + tonumber(ARGV[3])

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

local met = nil
local function store(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then
    met = said
    error(said)
  end
end

local ok = pcall(function()
  store('ZADD', IDS, unpack(all))
  store('ZADD', READY, unpack(ready))
  store('HSET', ENVELOPE, unpack(envelopes))
  store('HSET', CONTENT, unpack(contents))
  store('HSET', ROW, unpack(rows))
  store('HSET', META, 'messages', string.format('%.0f', messages), 'bytes', string.format('%.0f', bytes), ARGV[2], '1')
end)
if not ok then
  -- None of it, then.
  for _, key in ipairs({ ROW, ENVELOPE, CONTENT }) do redis.pcall('HDEL', key, unpack(ids)) end
  redis.pcall('ZREM', IDS, unpack(ids))
  for place = 2, #ready, 2 do redis.pcall('ZREM', READY, ready[place]) end
  return met
end
local told = redis.pcall('XADD', NEWS, 'MAXLEN', '~', '100', '*', 'n', '1')
return type(told) == 'string' and told or ''
