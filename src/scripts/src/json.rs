//! JSON of plain values, which takes half the time of the engine's own `JSON.stringify`: it makes lists of keys that nobody sees.
//! What is not plain is left to the engine: a `toJSON`, a Proxy, an object of a class, text that is no Unicode.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;

use rquickjs::atom::PredefinedAtom;
use rquickjs::{Array, Atom, Error, Object, Persistent, String as Text, Type, Value};

use crate::engine::MAX_RESULT;

/// Values in each other; what is deeper may be a circle.
const MAX_DEPTH: usize = 32;
/// Below this every number without a fraction is an `i64`, -0 too, which is written as 0.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Most keys that are remembered, and the bytes of each in JSON.
const KEYS: (usize, usize) = (256, 64);

/// Keys as JSON writes them: most answers of a script have the same ones. No script sees what is in here.
#[derive(Default)]
pub(crate) struct Keys(RefCell<HashMap<Persistent<Atom<'static>>, Box<[u8]>>>);

/// Why there is no JSON.
enum Not {
    /// The engine must write it, or say what is wrong with it.
    Plain,
    /// A getter has thrown.
    Thrown,
}

impl From<Error> for Not {
    fn from(error: Error) -> Not {
        if matches!(error, Error::Exception) { Not::Thrown } else { Not::Plain }
    }
}

/// Appends the value in JSON. `plain` is the prototype of objects which are of no class. `keys` are those of the value's engine.
pub(crate) fn write<'js>(
    value: &Value<'js>,
    plain: &Object<'js>,
    keys: &Keys,
    into: &mut Vec<u8>,
) -> Result<Written, Error> {
    let begin = into.len();
    let mut writer = Writer { out: into, begin, plain, keys };
    let written = match writer.value(value, 0) {
        Ok(true) => return Ok(Written::Json),
        Ok(false) => Written::Nothing,
        Err(Not::Plain) => Written::NotPlain,
        Err(Not::Thrown) => return Err(Error::Exception),
    };
    into.truncate(begin);
    Ok(written)
}

/// What came of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was written.
    Json,
    /// JSON has no word for it.
    Nothing,
    /// The engine has to write it.
    NotPlain,
}

struct Writer<'a, 'js> {
    out: &'a mut Vec<u8>,
    begin: usize,
    plain: &'a Object<'js>,
    keys: &'a Keys,
}

impl<'js> Writer<'_, 'js> {
    /// Whether there is something to write: not of what JSON has no word for.
    fn value(&mut self, value: &Value<'js>, depth: usize) -> Result<bool, Not> {
        if depth > MAX_DEPTH || self.out.len() - self.begin > MAX_RESULT {
            return Err(Not::Plain);
        }
        match value.type_of() {
            Type::Undefined | Type::Symbol => return Ok(false),
            Type::Null => self.out.extend_from_slice(b"null"),
            Type::Bool if value.as_bool() == Some(true) => self.out.extend_from_slice(b"true"),
            Type::Bool => self.out.extend_from_slice(b"false"),
            Type::Int | Type::Float => self.number(value.as_number().ok_or(Not::Plain)?)?,
            Type::String => self.text(value.as_string().ok_or(Not::Plain)?)?,
            Type::Array => self.list(value.as_array().ok_or(Not::Plain)?, depth)?,
            Type::Object => self.object(value.as_object().ok_or(Not::Plain)?, depth)?,
            _ => return Err(Not::Plain),
        }
        Ok(true)
    }

    fn number(&mut self, number: f64) -> Result<(), Not> {
        let size = number.abs();
        let written = if !number.is_finite() {
            self.out.write_all(b"null")
        } else if size < MAX_WHOLE && number.fract() == 0.0 {
            return serde_json::to_writer(&mut *self.out, &(number as i64)).map_err(|_| Not::Plain);
        } else if (1e-4..1e15).contains(&size) {
            // Several times as fast as `Display`. Of two shortest forms that are as near it takes the even one, as ECMAScript does
            // (Number::toString, note 2) and `Display` does not.
            return serde_json::to_writer(&mut *self.out, &number).map_err(|_| Not::Plain);
        } else if (MAX_WHOLE..1e21).contains(&size) {
            // No exponent in ECMAScript either, and no two forms as near: a number halfway would need more factors of two than ten has.
            write!(self.out, "{number}")
        } else {
            return Err(Not::Plain);
        };
        written.map_err(|_| Not::Plain)
    }

    fn text(&mut self, text: &Text<'js>) -> Result<(), Not> {
        let text = text.to_string()?;
        serde_json::to_writer(&mut *self.out, &text).map_err(|_| Not::Plain)
    }

    fn list(&mut self, list: &Array<'js>, depth: usize) -> Result<(), Not> {
        self.no_own_form(list.as_object())?;
        self.out.push(b'[');
        for at in 0..list.len() {
            if at > 0 {
                self.out.push(b',');
            }
            if !self.value(&list.get(at)?, depth + 1)? {
                self.out.extend_from_slice(b"null");
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, object: &Object<'js>, depth: usize) -> Result<(), Not> {
        if object.get_prototype().as_ref() != Some(self.plain) {
            return Err(Not::Plain);
        }
        self.no_own_form(object)?;
        self.out.push(b'{');
        let begin = self.out.len();
        for property in object.props::<Atom<'js>, Value<'js>>() {
            let (key, value) = property?;
            let before = self.out.len();
            if before > begin {
                self.out.push(b',');
            }
            self.key(key)?;
            if !self.value(&value, depth + 1)? {
                self.out.truncate(before);
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// With the colon behind it.
    fn key(&mut self, key: Atom<'js>) -> Result<(), Not> {
        let ctx = self.plain.ctx();
        let mut keys = self.keys.0.borrow_mut();
        let kept = Persistent::save(ctx, key);
        if let Some(json) = keys.get(&kept) {
            self.out.extend_from_slice(json);
            return Ok(());
        }
        let begin = self.out.len();
        let key = kept.clone().restore(ctx)?;
        self.text(&key.to_js_string()?)?;
        self.out.push(b':');
        let json = &self.out[begin..];
        if keys.len() < KEYS.0 && json.len() <= KEYS.1 {
            keys.insert(kept, json.into());
        }
        Ok(())
    }

    fn no_own_form(&self, object: &Object<'js>) -> Result<(), Not> {
        let form: Value<'js> = object.get(PredefinedAtom::ToJSON)?;
        if form.is_undefined() { Ok(()) } else { Err(Not::Plain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rquickjs::{Context, Ctx, Runtime};

    fn with<T>(job: impl FnOnce(Ctx<'_>) -> T) -> T {
        Context::full(&Runtime::new().unwrap()).unwrap().with(job)
    }

    fn written<'js>(ctx: &Ctx<'js>, value: &Value<'js>, into: &mut Vec<u8>) -> Result<Written, Error> {
        write(value, &Object::new(ctx.clone())?.get_prototype().unwrap(), &Keys::default(), into)
    }

    /// What is written here, and what the engine writes.
    fn both<'js>(ctx: &Ctx<'js>, value: &Value<'js>) -> (Option<String>, Option<String>) {
        let mut json = b"before".to_vec();
        let own = (written(ctx, value, &mut json).unwrap() == Written::Json)
            .then(|| String::from_utf8(json.split_off(6)).unwrap());
        assert_eq!(json, b"before");
        let engine = ctx.json_stringify(value.clone()).unwrap().map(|text| text.to_string().unwrap());
        (own, engine)
    }

    #[test]
    fn plain_values_are_written_as_the_engine_writes_them() {
        with(|ctx| {
            for source in [
                "({z: 1, a: [true, false, null, undefined, () => 1], 7: 'x', 'k\"\\n': {}, u: undefined})",
                "[0, -0, 1.5, -2.25, 1e20, 123456789012345680000, 0.0001, 4294967296, -2147483648, NaN, Infinity, 1/3]",
                "['', 'h\u{e9}\u{1f600}', '\\u0000\\b\\f\\r\\t\\u001f\\u007f\\u2028/\\\\']",
                "({get x() { return [1] }, [Symbol('s')]: 1, s: Symbol('s')})",
                "(() => { const o = {a: 1}; Object.defineProperty(o, 'hidden', {value: 1}); return o })()",
                "[,1,,]",
                "(() => { const a = [1]; a.extra = 2; return {a} })()",
                "'text'",
                "true",
            ] {
                let value: Value<'_> = ctx.eval(source).unwrap();
                let (own, engine) = both(&ctx, &value);
                // Functions in a list are not what a script gives on purpose.
                if source.contains("=> 1]") {
                    assert_eq!(own, None);
                } else {
                    assert!(own.is_some(), "{source}");
                    assert_eq!(own, engine, "{source}");
                }
            }
        });
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_engine() {
        with(|ctx| {
            for source in [
                "new Date(0)",
                "[new Number(5)]",
                "({a: new Map()})",
                "new Uint8Array(2)",
                "Object.create({a: 1})",
                "({toJSON() { return 1 }})",
                "(() => { const a = [1]; a.toJSON = () => 2; return a })()",
                "new Proxy({}, {})",
                "'\\ud800'",
                "({'\\ud800': 1})",
                "[1e21, 1e-7]",
                "0.00001",
                "undefined",
                "(() => { let deep = []; for (let i = 0; i < 40; i++) deep = [deep]; return deep })()",
                "1n",
            ] {
                let value: Value<'_> = ctx.eval(source).unwrap();
                let expected = if value.is_undefined() { Written::Nothing } else { Written::NotPlain };
                assert_eq!(written(&ctx, &value, &mut Vec::new()).unwrap(), expected, "{source}");
            }
            let throws: Value<'_> = ctx.eval("({get x() { throw 'no' }})").unwrap();
            assert!(written(&ctx, &throws, &mut Vec::new()).is_err());
        });
    }

    #[test]
    fn keys_are_the_same_the_second_time_and_not_all_are_kept() {
        with(|ctx| {
            let plain = Object::new(ctx.clone()).unwrap().get_prototype().unwrap();
            let keys = Keys::default();
            let long = "k".repeat(KEYS.1);
            for source in [
                format!("({{a: 1, 'a b': 2, '\"': 3, 7: 4, {long}: 5}})"),
                "(() => { const o = {}; for (let i = 0; i < 1000; i++) o['k' + i] = i; return o })()"
                    .to_owned(),
            ] {
                let value: Value<'_> = ctx.eval(source).unwrap();
                let engine = ctx.json_stringify(value.clone()).unwrap().unwrap().to_string().unwrap();
                for _ in 0..2 {
                    let mut json = Vec::new();
                    assert_eq!(write(&value, &plain, &keys, &mut json).unwrap(), Written::Json);
                    assert_eq!(String::from_utf8(json).unwrap(), engine);
                }
            }
            assert_eq!(keys.0.borrow().len(), KEYS.0);
            assert!(keys.0.borrow().values().all(|json| json.len() <= KEYS.1));
        });
    }

    /// Each has two forms of the fewest digits, both as near.
    #[test]
    fn halfway_between_two_forms_the_even_one_is_written() {
        with(|ctx| {
            for number in
                [4_498_031_788_593_873.0 / 4.0, 43.0 * 2f64.powi(-22), 2_251_799_813_685_249.0 / 4.0]
            {
                let (own, engine) = both(&ctx, &Value::new_float(ctx.clone(), number));
                assert!(own.is_none() || own == engine, "{number:e}: {own:?} {engine:?}");
            }
        });
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            (-1e6..1e6f64).prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::vec((".{0,4}", inner), 0..6)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_number_has_the_engines_digits(bits in any::<u64>(), whole in any::<i64>(), point in -8i32..24) {
            // Most of all doubles are of no size that a sensor has.
            let sized = whole as f64 / i64::MAX as f64 * 10f64.powi(point);
            with(|ctx| {
                for number in [f64::from_bits(bits), whole as f64, sized, (sized * 100.0).round() / 100.0] {
                    let (own, engine) = both(&ctx, &Value::new_float(ctx.clone(), number));
                    prop_assert!(own.is_none() || own == engine, "{number:e}: {own:?} {engine:?}");
                }
                Ok(())
            })?;
        }

        #[test]
        fn any_json_is_written_as_the_engine_writes_it_or_left_to_it(json in json()) {
            with(|ctx| {
                let value = ctx.json_parse(json.to_string()).unwrap();
                let (own, engine) = both(&ctx, &value);
                prop_assert!(own.is_none() || own == engine, "{:?} {:?}", own, engine);
                Ok(())
            })?;
        }
    }
}
