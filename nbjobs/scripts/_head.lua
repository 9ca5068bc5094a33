-- Prelude of all eight scripts: the loader puts it between a script's shebang line and its body.
--
-- KEYS  1 run  2 run:events  3 run:log  4 user events  5 runs  6 due
-- ARGV  1 id  2 run_events  3 user_events  4 keep_ms  5.. the script's own, named in its second line
--
-- A script checks everything first and writes last: an error in the middle would leave the first half written.
-- A refusal is a reply that carries the run as it stands, and each script is safe to send again, byte for byte.
-- Who may call a script may have written anything into the run's fields, too: neither may make a loop long.

local END = {completed = true, failed = true, cancelled = true, dead = true}
local TYPES = {'hash', 'stream', 'stream', 'stream', 'zset', 'zset'}
local FIELDS = {
  'state', 'control', 'owner', 'last_owner', 'fence', 'lease_until', 'attempt', 'at', 'c', 'n', 'control_n',
  'crashes', 'failures', 'fruitless', 'resumptions', 'steps', 'bytes', 'last_id', 'view_id',
  'step', 'cursor', 'done', 'total', 'job', 'args', 'maps', 'generation',
}
local KEPT_EVENTS = '200'        -- of a run that has ended
local LOST_WAKE_UP = 60000       -- ms after which a queued run is looked at, should its wake-up be lost
local PUT_BACK = 5000            -- the same after a release or a lapse, where the next wake-up is not certain
local MAX_STEPS, MAX_EVENTS = 64, 256           -- of one commit
local MAX_ENDED = 100000                        -- steps of a run
local MAX_MAPS = 262144                         -- bytes of the field that lists a run's maps
local MAX_ARGUMENTS = 4000                      -- more than the largest commit has
local SLICE = 1000                              -- values that one command takes: `unpack` stops below 8,000
local LARGEST = 9007199254740991                -- beyond it Lua's numbers lose digits
local MAX_EVENT, MAX_VIEW, MAX_CURSOR, MAX_NAME = 16384, 16384, 8192, 1024
local MAX_VALUE, MAX_VALUES = 65536, 4194304    -- of one step, of all steps of a run
local MAX_RESULTS, MAX_MAP = 1000, 16777216     -- of `step.map`: results in one commit, bytes of all of one step
local MAX_FIELD, MAX_RESULT, MAX_ERROR = 65536, 1048576, 65536

for i = 1, 6 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= TYPES[i] then return {'BADTYPE', KEYS[i]} end
end

-- A count is written in decimal digits. `tonumber` would take '0x10', ' 5', '-1', '1e308' and 'nan' too.
local function whole(text)
  local number = #text <= 16 and text:find('^%d+$') and tonumber(text)
  return number and number <= LARGEST and number or nil
end
local function num(text) return text and whole(text) or 0 end
local function int(number)                       -- `..` prints %.14g and loses digits
  return string.format('%.0f', math.min(math.max(number, 0), LARGEST))
end
for i = 2, 4 do
  if not whole(ARGV[i]) then return {'BADDATA', 'argument ' .. i} end
end

-- The run as text, '' for what is missing (HMGET answers false), and the time, taken once: it is not frozen on 7.0.
local id, run, changed, removed = ARGV[1], {}, {}, {}
local stored = redis.call('HMGET', KEYS[1], unpack(FIELDS))
for i, field in ipairs(FIELDS) do run[field] = stored[i] or '' end
for _, field in ipairs({'attempt', 'at', 'c', 'n', 'crashes'}) do   -- these are told to readers
  if run[field] ~= '' and not whole(run[field]) then run[field] = '0' end
end
if #run.maps > MAX_MAPS then run.maps = '' end
local gone = not stored[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function answer(code)
  return {code, run.state, run.c, run.n, run.attempt, run.at, run.control, run.fence, run.crashes, int(now)}
end
local function holds(owner) return run.owner == owner end
-- Whether somebody has asked for something since n was `n_seen`; `control_n` is never above n.
local function asked_since(n_seen) return math.min(num(run.control_n), num(run.n)) > num(n_seen) end
local function larger(i, limit)
  if #ARGV[i] > limit then return {'TOOBIG', 'argument ' .. i} end
end

-- Writing: fields are gathered by `put` and stored by `save`, which first removes those that `drop` has gathered.
local function put(field, value)
  run[field] = value
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
local function add(field, amount) put(field, int(num(run[field]) + amount)) end
local function in_slices(command, values)
  for i = 1, #values, SLICE do
    redis.call(command, KEYS[1], unpack(values, i, math.min(i + SLICE - 1, #values)))
  end
end
local function save()
  in_slices('HDEL', removed)
  in_slices('HSET', changed)
  changed, removed = {}, {}
end
local function look_at(time)                     -- when somebody must look at the run; nil: nobody need
  if time then redis.call('ZADD', KEYS[6], int(time), id) else redis.call('ZREM', KEYS[6], id) end
end
local function lease(ms)
  put('lease_until', int(now + num(ms)))
  look_at(now + num(ms))
end

-- Adds an event. One with a state is a state event: numbered, and in the user's stream too.
local function entry(name, d, state)
  local pairs_ = {'e', name, 'id', id, 'a', run.attempt, 'd', d}
  if state then
    add('n', 1)
    for _, x in ipairs({'n', run.n, 's', state, 'at', run.at, 'k', run.crashes}) do pairs_[#pairs_ + 1] = x end
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', unpack(pairs_))
  end
  put('last_id', redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(pairs_)))
end

-- What `step.map` keeps of the run's k-th step: a hash of index → result beside its name and its bytes. The field
-- `maps` lists these ks; their keys live and go with the run.
local function map_key(k) return KEYS[1] .. ':map:' .. k end
local function each_map(command, ...)
  for k in run.maps:gmatch('%d+') do redis.call(command, map_key(k), ...) end
end

-- Brings the run into a state and stores all that was gathered. `time`: see look_at.
local function become(state, time)
  put('state', state)
  redis.call('ZADD', KEYS[5], int(now), id)
  look_at(time)
  save()
  if END[state] then
    redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', KEPT_EVENTS)
    for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
    each_map('PEXPIRE', ARGV[4])
  else                                           -- of a user who was let go
    for i = 4, 5 do redis.call('PERSIST', KEYS[i]) end
  end
end

-- The checkpoint that `commit` and `finish` share, from argument `i` on:
-- c n_seen view moved step cursor done total nsteps (meta value)* (kind name d)*
-- Kind `m` is no event: `m k name` begins the map of the k-th step, `m k:index text` adds a result to it.
local function checkpoint(i)
  local c, count = ARGV[i], num(ARGV[i + 8])
  return {
    counts = (c == '' or whole(c)) and whole(ARGV[i + 8]),
    c = c == '' and c or int(num(c)), n_seen = ARGV[i + 1], view = ARGV[i + 2], moved = ARGV[i + 3] == '1',
    step = ARGV[i + 4], cursor = ARGV[i + 5], done = ARGV[i + 6], total = ARGV[i + 7],
    ended = count, first_step = i + 9, first_event = i + 9 + 2 * count,
  }
end
local function map_entry(j) return ARGV[j + 1]:match('^(%d+):?(%d*)$') end
local function too(what) return {'TOOBIG', what} end
local function unfit_results(new)                -- answers how many there are, or nil and the refusal
  local count, bytes = 0, {}
  for j = new.first_event, #ARGV, 3 do
    if ARGV[j] == 'm' then
      local k, index = map_entry(j)
      if not k or #k > 9 or #index > 15 or #ARGV[j + 2] > MAX_VALUE then return nil, too('result') end
      if not bytes[k] then
        local found = redis.call('TYPE', map_key(k)).ok
        if found ~= 'none' and found ~= 'hash' then return nil, {'BADTYPE', map_key(k)} end
        bytes[k] = num(found == 'hash' and redis.call('HGET', map_key(k), 'bytes'))
      end
      bytes[k] = index == '' and 0 or bytes[k] + #ARGV[j + 2]
      if bytes[k] > MAX_MAP then return nil, too('results') end
      count = count + 1
    end
  end
  if count > MAX_RESULTS then return nil, too('commit') end
  return count
end
local function oversize(new)                     -- answers the refusal, where there is one
  if new.ended > MAX_STEPS or #ARGV > MAX_ARGUMENTS then return too('commit') end
  local left = #ARGV + 1 - new.first_event
  if not new.counts or left < 0 or left % 3 ~= 0 then return {'BADDATA', 'commit'} end
  local results, refusal = unfit_results(new)
  if refusal then return refusal end
  if #ARGV >= new.first_event + 3 * (MAX_EVENTS + results) then return too('commit') end
  if num(run.steps) + new.ended > MAX_ENDED then return too('steps') end
  if #run.maps > MAX_MAPS - 10 * results then return too('maps') end
  if #new.view > MAX_VIEW then return too('view') end
  if #new.cursor > MAX_CURSOR then return too('cursor') end
  if #new.step > MAX_NAME then return too('step') end
  if #new.done > MAX_NAME or #new.total > MAX_NAME then return too('count') end
  local bytes = num(run.bytes)
  for j = new.first_step, new.first_event - 2, 2 do
    if #ARGV[j] > MAX_EVENT then return too('step') end
    if #ARGV[j + 1] > MAX_VALUE then return too('value') end
    bytes = bytes + #ARGV[j + 1]
  end
  if bytes > MAX_VALUES then return too('values') end
  for j = new.first_event, #ARGV, 3 do
    if ARGV[j] ~= 'm' and (#ARGV[j + 1] > MAX_NAME or #ARGV[j + 2] > MAX_EVENT) then return too('event') end
  end
end
local function add_events(new)
  for j = new.first_event, #ARGV, 3 do
    if ARGV[j] ~= 'm' then entry(ARGV[j + 1], ARGV[j + 2], ARGV[j] == 's' and run.state or nil) end
  end
end
local function keep_results(new)
  local listed = {}
  for j = new.first_event, #ARGV, 3 do
    if ARGV[j] == 'm' then
      local k, index = map_entry(j)
      local key, text = map_key(k), ARGV[j + 2]
      if not listed[k] and not (',' .. run.maps .. ','):find(',' .. k .. ',', 1, true) then
        put('maps', run.maps == '' and k or run.maps .. ',' .. k)
      end
      listed[k] = true
      if index == '' then
        redis.call('DEL', key)
        redis.call('HSET', key, 'name', text, 'bytes', '0')
      else
        local bytes = num(redis.call('HGET', key, 'bytes')) + #text - redis.call('HSTRLEN', key, index)
        redis.call('HSET', key, index, text, 'bytes', int(bytes))
      end
    end
  end
end
local function apply(new)
  local view_fits = new.n_seen == run.n          -- else the view misses what others wrote meanwhile
  for j = new.first_step, new.first_event - 2, 2 do
    add('steps', 1)
    add('bytes', #ARGV[j + 1])
    put('s:' .. run.steps, ARGV[j])
    put('v:' .. run.steps, ARGV[j + 1])
  end
  for _, field in ipairs({'c', 'step', 'cursor', 'done', 'total'}) do put(field, new[field]) end
  if new.moved then put('crashes', '0') end
  if new.moved and num(run.fruitless) > 0 then put('fruitless', '0') end
  keep_results(new)
  add_events(new)
  if view_fits and new.view ~= '' then
    put('view', new.view)
    put('view_id', run.last_id)
  end
end

-- Forgets the steps from ordinal `from` on with their values and maps, and the cursor. Answers the refusal, where
-- there is one: then nothing has changed. What the body enqueues from now on are other runs than before.
local function drop(from)
  local steps, freed = num(run.steps), 0
  if not from or from < 1 then return {'BADDATA', 'from_step'} end
  if steps > MAX_ENDED or steps > 0 and not redis.call('HMGET', KEYS[1], 's:' .. int(steps))[1] then
    return {'BADDATA', 'steps'}
  end
  for k = from, steps do
    freed = freed + redis.call('HSTRLEN', KEYS[1], 'v:' .. int(k))
    removed[#removed + 1] = 's:' .. int(k)
    removed[#removed + 1] = 'v:' .. int(k)
  end
  add('bytes', -freed)
  put('steps', int(math.min(steps, from - 1)))
  if num(run.attempt) > 0 then add('generation', 1) end
  local kept = {}
  for k in run.maps:gmatch('%d+') do
    if num(k) < from then kept[#kept + 1] = k else redis.call('DEL', map_key(k)) end
  end
  if run.maps ~= '' then put('maps', table.concat(kept, ',')) end
  for _, field in ipairs({'step', 'cursor', 'done', 'total'}) do put(field, '') end
end
